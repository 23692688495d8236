"""`python -m studies.zero_shot`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.zero_shot")
