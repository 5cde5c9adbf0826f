"""Makes the C allocator keep the memory of fragments instead of giving it back after each one.

glibc maps every block of 4 MiB afresh and unmaps it when it is freed, and the kernel must zero each page
anew: a third of the processor time of a 4 MiB write.  With these thresholds freed blocks are used again;
what a process keeps is bounded by what it once held at the same time.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
MMAP_ABOVE_BYTES = 32 * 1024 * 1024
"""The largest value that glibc takes on 64-bit machines."""
KEEP_BYTES = 64 * 1024 * 1024


def keep_fragments_mapped() -> bool:
    """Set the thresholds; False where the C library has no ``mallopt`` (it is not glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_ABOVE_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES))
