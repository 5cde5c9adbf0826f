"""Reads on their way to the read threads: small ones share a job, large ones have one each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from fabric.chunk.jobs import ReadBatch, ReadDone, ReadItem, ReadResult
from fabric.errors import DeadlineExceeded
from fabric.node.effects import Effect, Run

if TYPE_CHECKING:
    from typing import TypeAlias

LANE = "read"
BATCH_BYTES = 256 * 1024
BATCH_ITEMS_MAX = 16
WAITING_MAX = 4096
"""Reads that may wait; beyond that the answer is BUSY."""

Done: TypeAlias = "Callable[[ReadResult, float], list[Effect]]"


class Ticket(msgspec.Struct, eq=False):
    """The token of a read: whom to tell, and until when it is worth reading."""

    done: Done
    expires_at: float


class ReadQueue:
    """Reads that wait for a thread, in order of arrival."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._running = 0
        self._waiting: deque[ReadItem] = deque()
        self._reading = 0
        """Reads that threads are at."""
        self.done_count = 0
        """Reads that gave bytes or a place, since the start."""
        self.done_bytes = 0

    @property
    def is_full(self) -> bool:
        """Refuse further reads."""
        return len(self._waiting) >= WAITING_MAX

    @property
    def pending(self) -> int:
        """Reads that wait or are under way."""
        return len(self._waiting) + self._reading

    def add(self, item: ReadItem) -> None:
        """Queue a read, whose token is a ``Ticket``."""
        self._waiting.append(item)

    def take(self, now: float) -> list[Effect]:
        """Start jobs while threads are free; answer the reads whose deadline has passed."""
        effects: list[Effect] = []
        while self._waiting and self._running < self._threads:
            items: list[ReadItem] = []
            room = BATCH_BYTES
            while self._waiting and len(items) < BATCH_ITEMS_MAX:
                item = self._waiting[0]
                size = 0 if item.place_only else item.length
                if items and size > room:
                    break
                self._waiting.popleft()
                if item.token.expires_at <= now:
                    late = DeadlineExceeded("the deadline passed before the read began")
                    effects += item.token.done(ReadResult(item.token, error=late), now)
                    continue
                room -= size
                items.append(item)
            if items:
                self._running += 1
                self._reading += len(items)
                effects.append(Run(LANE, ReadBatch(items)))
        return effects

    def finish(self, done: ReadDone, now: float) -> list[Effect]:
        """A job is back: tell everyone."""
        self._running -= 1
        self._reading -= len(done.results)
        effects: list[Effect] = []
        for result in done.results:
            if result.error is None:
                self.done_count += 1
                self.done_bytes += len(result.payload) + result.near_bytes
            effects += result.token.done(result, now)
        return effects
