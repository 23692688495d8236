"""For all tests: linear algebra on one thread, and no deadline for a single example of hypothesis."""

import os

from hypothesis import settings

# pytest itself keeps every core busy, and threads that wait for one another make small SVDs many times slower then.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when numpy is loaded

settings.register_profile("unhurried", deadline=None)  # a busy machine is no error
settings.load_profile("unhurried")
