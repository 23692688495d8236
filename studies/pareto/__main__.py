"""`python -m studies.pareto`."""

from formulation.command.run import run_command
from studies.pareto.study import main

if __name__ == "__main__":
    run_command(main)
