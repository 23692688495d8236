"""`python -m studies.report`."""

from formulation.command.run import run_command
from studies.report.study import main

if __name__ == "__main__":
    run_command(main)
