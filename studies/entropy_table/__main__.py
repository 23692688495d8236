"""`python -m studies.entropy_table`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.entropy_table")
