"""`python -m studies.design`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.design")
