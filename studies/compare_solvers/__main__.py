"""`python -m studies.compare_solvers`."""

from formulation.command.run import run_command
from studies.compare_solvers.study import main

if __name__ == "__main__":
    run_command(main)
