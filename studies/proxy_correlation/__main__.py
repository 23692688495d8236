"""`python -m studies.proxy_correlation`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.proxy_correlation")
