"""`python -m studies.latency_data`."""

from formulation.command.run import run_command
from studies.latency_data.study import main

if __name__ == "__main__":
    run_command(main)
