"""`python -m studies.ship`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.ship")
