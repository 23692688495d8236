"""`python -m studies.hardware`."""

from formulation.command.run import run_command
from studies.hardware.study import main

if __name__ == "__main__":
    run_command(main)
