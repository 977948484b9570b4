"""Keeping what was freed in the process, and how much it has taken.

Networks and blocks ask for the same large arrays again and again. The C library of Linux gives arrays of more than
32 MB back to the system as soon as they are freed. Every step then waits for the system to hand out and clear the same
pages again: a ReLU over 64 MB took 76 ms so, and 3 ms without.

It also gives every thread a heap of its own, and many threads decode chunks: each waits for its own pages then. With
one heap for all, the first reading of a block took 0.23 s of processor time instead of 0.96, and later ones a tenth
less.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # numbers of glibc's mallopt
_KEEP = (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1)
_GIVE_BACK = (_MMAP_MAX, 2**16), (_TRIM_THRESHOLD, 2**17)  # as it is to begin with
_kept = False


def keep_freed_memory() -> bool:
    """Let this process reuse the memory it frees, all threads; until it ends, other processes do not get it back.

    Returns:
        Whether the C library could be told (glibc only; elsewhere nothing happens).
    """
    global _kept
    _kept = _set(*_KEEP, (_ARENA_MAX, 1))
    return _kept


@contextlib.contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """The same for a while; then the system gets it back, unless this process keeps it anyway."""
    if _kept or not _set(*_KEEP):
        yield
        return
    try:
        yield
    finally:
        _set(*_GIVE_BACK)
        ctypes.CDLL(None).malloc_trim(0)


def _set(*settings: tuple[int, int]) -> bool:
    """Whether the C library took all settings."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(*setting) for setting in settings)


def most_taken() -> int:
    """Bytes that this process has taken at most so far."""
    if sys.platform.startswith("linux"):
        # what getrusage says there includes the process that started this one
        with open("/proc/self/status", "rb", buffering=0) as file:
            return 1024 * int(file.read().partition(b"VmHWM:")[2].split(None, 1)[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
