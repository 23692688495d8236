"""`python -m studies.latency_data`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.latency_data")
