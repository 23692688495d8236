"""`python -m studies.entropy_table`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.entropy_table")
