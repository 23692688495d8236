"""`python -m studies.latency_check`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.latency_check")
