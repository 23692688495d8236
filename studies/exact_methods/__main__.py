"""`python -m studies.exact_methods`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.exact_methods")
