"""`python -m studies.quantization`."""

from studies.front_door import start

if __name__ == "__main__":
    start("studies.quantization")
