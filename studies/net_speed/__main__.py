"""`python -m studies.net_speed`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.net_speed")
