"""Memory of a worker: what was freed is kept for the next piece instead of going back to the system."""

from __future__ import annotations

import ctypes

#: ``mallopt(3)``, malloc.h: requests from this size on get pages of their own, each touched for the first time each
#: time (the most that the C library takes); what is free at the end of a heap is given back from this size on.
_MMAP_THRESHOLD, _MMAP_FROM = -3, 32 * 1024 * 1024
_TRIM_THRESHOLD, _TRIM_FROM = -1, 64 * 1024 * 1024
#: All threads share one heap: what one has freed is there for the others. Python lets one of them run at a time anyway.
_ARENA_MAX, _ARENAS = -8, 1


def keep_freed_memory() -> None:
    """For a process that handles pieces of megabytes one after the other and ends soon. First touching a page costs
    about as much as unpacking what it takes, more in a virtual machine. A C library without ``mallopt`` does as it
    likes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _MMAP_FROM)
        mallopt(_TRIM_THRESHOLD, _TRIM_FROM)
        mallopt(_ARENA_MAX, _ARENAS)
