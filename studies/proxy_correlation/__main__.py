"""`python -m studies.proxy_correlation`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.proxy_correlation")
