"""`python -m studies.latency_check`."""

from formulation.command.run import run_command
from studies.latency_check.study import main

if __name__ == "__main__":
    run_command(main)
