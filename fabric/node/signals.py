"""Ends a poll loop on SIGTERM or SIGINT.

Python runs a signal's handler only between two steps of the main thread.  A signal that comes just
before a blocking poll would wait until the poll ends, maybe for ever; so the C level handler also
writes to a pipe, whose read end belongs into the poll set.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

_ENDING = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def ending_on_signals(stop: Callable[[], None]) -> Iterator[int | None]:
    """Inside, SIGTERM and SIGINT call ``stop``; yields the descriptor to poll and to ``drain``.

    Yields None outside the main thread, where signals cannot be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, lambda *_: stop()) for number in _ENDING}
    try:
        yield reader
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        os.close(reader)
        os.close(writer)


def drain(descriptor: int) -> None:
    """Forget the signals noted so far; their handlers have run or run next."""
    with contextlib.suppress(BlockingIOError):
        os.read(descriptor, 4096)
