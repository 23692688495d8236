"""`python -m studies.design`."""

from formulation.command.run import run_command
from studies.design.study import main

if __name__ == "__main__":
    run_command(main)
