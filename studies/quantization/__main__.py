"""`python -m studies.quantization`."""

from formulation.command.run import run_command
from studies.quantization.study import main

if __name__ == "__main__":
    run_command(main)
