"""Memory that fragments are put into for a proxy and chunk servers on this machine to read.

A block holds one fragment, for as long as its request runs; then it is used again, since memory that is new
costs more than the copy.  Blocks that nobody needs are given back after a while.  Nobody needs to know
when the last reader has finished: see ``fabric.node.shared_memory``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fabric.driver.splitter import Parts
from fabric.node.pieces import cut
from fabric.node.shared_memory import SharedBytes, make_file
from fabric.settings import KIB

SHARED_BYTES_MIN = 64 * KIB
"""Smaller payloads are sent: that costs no more."""
BLOCKS_MAX = 32
IDLE_S = 10.0
"""A block that was not used for so long is given back."""
REST_S = 30.0
"""For so long bytes are sent after a reader found no memory where it was told."""


class _Block:
    def __init__(self) -> None:
        """Raises OSError."""
        self.descriptor, self.file = make_file()
        self.used_at = 0.0

    def fill(self, parts: Parts) -> None:
        position = 0
        for piece in cut(parts):
            written = os.pwritev(self.descriptor, piece, position)
            if written != sum(map(len, piece)):
                raise OSError("memory took a part only")
            position += written
            os.sched_yield()


class NearWrites:
    """Blocks of one process.  Use inside a running event loop."""

    def __init__(self, is_on: bool = True, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._is_on = is_on and hasattr(os, "memfd_create")
        self._monotonic_s = monotonic_s
        self._free: list[_Block] = []
        """The one used last is at the end."""
        self._used: set[_Block] = set()
        self._rests_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.count = 0
        """Payloads put into blocks."""

    @contextmanager
    def holding(self, parts: Parts) -> Iterator[SharedBytes | None]:
        """A payload of these bytes in memory, good for as long as the ``with`` block runs.

        None when they should be sent: no block is free, or there is no memory.
        """
        block = self._filled(parts)
        if block is None:
            yield None
            return
        self.count += 1
        try:
            yield SharedBytes(block.file, sum(map(len, parts)))
        finally:
            self._give_back(block)

    def rest(self) -> None:
        """A reader did not find what it was told of: send bytes for a while."""
        self._rests_until = self._monotonic_s() + REST_S

    def _filled(self, parts: Parts) -> _Block | None:
        if not self._is_on or self._monotonic_s() < self._rests_until:
            return None
        block: _Block | None = None
        try:
            block = self._take()
            if block is not None:
                block.fill(parts)
        except OSError:
            self.rest()
            if block is not None:
                self._give_back(block)
            return None
        return block

    def _take(self) -> _Block | None:
        if not self._free and len(self._used) >= BLOCKS_MAX:
            return None
        block = self._free.pop() if self._free else _Block()
        self._used.add(block)
        return block

    def _give_back(self, block: _Block) -> None:
        if block not in self._used:
            return  # closed meanwhile
        self._used.remove(block)
        block.used_at = self._monotonic_s()
        self._free.append(block)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._close_idle)

    def _close_idle(self) -> None:
        self._timer = None
        now = self._monotonic_s()
        while self._free and now - self._free[0].used_at >= IDLE_S:
            os.close(self._free.pop(0).descriptor)
        if self._free:
            self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._close_idle)

    def close(self) -> None:
        """Give all memory back, also what a request still holds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for block in [*self._free, *self._used]:
            os.close(block.descriptor)
        self._free.clear()
        self._used.clear()
