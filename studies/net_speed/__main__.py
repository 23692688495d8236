"""`python -m studies.net_speed`."""

from formulation.command.run import run_command
from studies.net_speed.study import main

if __name__ == "__main__":
    run_command(main)
