"""`python -m studies.proxy_correlation`."""

from formulation.command.run import run_command
from studies.proxy_correlation.study import main

if __name__ == "__main__":
    run_command(main)
