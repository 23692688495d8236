"""`python -m studies.llama_cpp`."""

from merino_packages import start

if __name__ == "__main__":
    start("studies.llama_cpp")
