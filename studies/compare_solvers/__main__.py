"""`python -m studies.compare_solvers`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.compare_solvers")
