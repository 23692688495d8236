"""`python -m studies.scaling`."""

from formulation.command.run import run_command
from studies.scaling.study import main

if __name__ == "__main__":
    run_command(main)
