"""`python -m studies.calibration`."""

from formulation.command.run import run_command
from studies.calibration.study import main

if __name__ == "__main__":
    run_command(main)
