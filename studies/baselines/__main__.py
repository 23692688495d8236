"""`python -m studies.baselines`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.baselines")
