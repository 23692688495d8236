"""`python -m studies.ablation`."""

from formulation.command.run import run_command
from studies.ablation.study import main

if __name__ == "__main__":
    run_command(main)
