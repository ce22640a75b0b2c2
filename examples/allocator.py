"""What a CPU process does with memory that it has freed.

glibc hands large blocks back to the system and fetches them again at every update: a third of a
training's time. Kept in its heap they are cut up ever more, as batches differ in size, and 1.3 GB
in use take 4 after half an hour. So the heap keeps them, and now and then gives back idle pages.
"""

import ctypes
import sys
from itertools import count

UPDATES = 50  # between two trimmings
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_... of malloc.h
_glibc = ctypes.CDLL(None) if sys.platform == "linux" else None
if not hasattr(_glibc, "malloc_trim"):  # another C library
    _glibc = None


def keep_freed_memory() -> None:
    """Blocks of every size stay in the heap, for the whole process."""
    if _glibc is not None:
        _glibc.mallopt(_MMAP_MAX, 0)
        _glibc.mallopt(_TRIM_THRESHOLD, -1)


def trim() -> None:
    """Give back the heap's free pages."""
    if _glibc is not None:
        _glibc.malloc_trim(0)


def trimming(step):
    """``step``, which every so many calls begins by giving back the heap's free pages."""
    calls = count(1)

    def run(*args, **kwargs):
        if next(calls) % UPDATES == 0:
            trim()
        return step(*args, **kwargs)

    return run
