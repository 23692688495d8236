"""`python -m studies.recipes`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.recipes")
