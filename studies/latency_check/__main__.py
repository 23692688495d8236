"""`python -m studies.latency_check`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.latency_check")
