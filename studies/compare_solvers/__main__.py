"""`python -m studies.compare_solvers`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.compare_solvers")
