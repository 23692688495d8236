"""`python -m studies.net_speed`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.net_speed")
