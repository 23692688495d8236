"""`python -m studies.scaling`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.scaling")
