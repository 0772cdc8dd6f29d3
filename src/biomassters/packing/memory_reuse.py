"""How the C library keeps memory that arrays of a few megabytes have freed, for the next ones.

Knows glibc's settings; does nothing where the C library has none such.
"""

import ctypes
from typing import Final

ARENA_MAX: Final = -8
MMAP_THRESHOLD: Final = -3
TRIM_THRESHOLD: Final = -1
"""Numbers of the settings. Source: glibc, malloc.h."""

LARGEST_KEPT_BYTES: Final = 2**25
"""The most that glibc takes. Larger blocks go back to the system at once."""
MAX_ARENAS: Final = 2
"""Pools of memory, of which each keeps what its threads have freed."""


def reuse_memory() -> None:
    """Keep the freed memory of arrays in this process, up to some 64 MiB a pool.

    Otherwise every array costs a page fault each 4 KiB: a seventh of all time spent on packing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(ARENA_MAX, MAX_ARENAS)
    mallopt(MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    mallopt(TRIM_THRESHOLD, 2 * LARGEST_KEPT_BYTES)
