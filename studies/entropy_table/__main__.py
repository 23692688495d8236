"""`python -m studies.entropy_table`."""

from formulation.command.run import run_command
from studies.entropy_table.study import main

if __name__ == "__main__":
    run_command(main)
