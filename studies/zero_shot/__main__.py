"""`python -m studies.zero_shot`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.zero_shot")
