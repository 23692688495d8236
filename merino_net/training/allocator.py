"""The C library's memory allocator, told to keep what a program frees.

A training step allocates and frees the logits several times over (2,048 tokens × 50,257 × 4 bytes = 412 MB each). glibc takes so
large a buffer from the system and gives it back at once, and the system zeroes every page again before it hands it out again: some
700,000 page faults a step, a quarter of the processor's time. Kept in the process, the memory is there for the next step.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3), as glibc's <malloc.h> numbers them.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4

_NO_MAPPINGS = 0
"""Buffers served by a mapping of their own: none, as that goes back to the system when it is freed, whatever the threshold."""

_NEVER = -1
"""Free bytes at the end of the heap above which it is cut. −1 is the largest size there is, where the largest positive value that
mallopt takes, 2 GiB − 1, is less than what a step of a 50 M design on 8 × 256 tokens frees."""


def keep_memory() -> bool:
    """Whether this process now keeps freed memory for its next allocations; False if there is no glibc, and nothing changes.

    To be called once, before the first large tensor is made. Results are the same; the process stays as large as it ever was,
    in training about a third larger than it would have been.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):  # musl, for one, has no mallopt
        return False
    return all(
        libc.mallopt(parameter, value) == 1 for parameter, value in ((_M_MMAP_MAX, _NO_MAPPINGS), (_M_TRIM_THRESHOLD, _NEVER))
    )
