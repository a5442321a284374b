"""The memory of a process that works for long: what is freed is kept, and what stays is not looked through again."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # parameters of mallopt(3)


def keep_freed_memory() -> None:
    """Makes this process keep freed memory from here on; elsewhere than on glibc this does nothing.

    Arrays of a few megabytes, numpy's and torch's alike, are otherwise mapped afresh, and their pages zeroed, at every
    operation: the learner spends a third more time.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, 2**30)
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(ARENA_MAX, 1)


def keep_what_is_loaded() -> None:
    """Leaves all objects that there are by now out of Python's garbage collection.

    Modules and machine code are some hundred thousand objects, and looking through them stops a learner for a tenth of
    a second.
    """
    gc.collect()
    gc.freeze()
