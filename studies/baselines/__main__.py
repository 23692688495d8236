"""`python -m studies.baselines`."""

from formulation.command.run import run_command
from studies.baselines.study import main

if __name__ == "__main__":
    run_command(main)
