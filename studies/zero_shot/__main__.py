"""`python -m studies.zero_shot`."""

from formulation.command.run import run_command
from studies.zero_shot.study import main

if __name__ == "__main__":
    run_command(main)
