"""Sets up the process of a role: its allocator, its place in the scheduler, its garbage collector.

Nothing here changes what a role does; each part is worth its measured share of processor time.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
MMAP_ABOVE_BYTES = 32 * 1024 * 1024
"""The largest value that glibc takes on 64-bit machines."""
KEEP_BYTES = 64 * 1024 * 1024

GARBAGE_THRESHOLD = 20_000
"""Objects made since the last collection of the youngest generation."""


def set_up_process() -> None:
    """Call it first: threads that exist already are not rescheduled."""
    keep_fragments_mapped()
    schedule_in_batches()
    collect_less_garbage()


def keep_fragments_mapped() -> bool:
    """Make the C allocator use the memory of freed fragments again; False where it has no ``mallopt``.

    glibc maps a block of 4 MiB afresh and unmaps it when it is freed, and the kernel must zero each of
    its pages: a third of the processor time of a 4 MiB write.  What a process keeps is bounded by what
    it once held at the same time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_ABOVE_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES))


def schedule_in_batches() -> None:
    """Tell the kernel that a thread which wakes up need not push another one off its processor.

    A message passes through some ten threads.  When each wakes at once for every single message, half
    of the processor time goes into switching; with SCHED_BATCH they find several messages when they wake.
    A system that forbids it loses speed only.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def collect_less_garbage() -> None:
    """Collect cycles rarely: messages are freed by their reference counts."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)
