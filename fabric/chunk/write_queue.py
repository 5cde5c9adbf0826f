"""Group commit: what arrives while a batch is being written goes into the next one, together.

An idle disk writes at once; a busy one gets larger batches by itself, with no timer.  The bytes held
here are bounded for clients; what the server itself adds (pulled fragments, deletions) has its own bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from fabric.chunk.jobs import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    DeleteItem,
    StoreItem,
    WriteBatch,
    WriteDone,
    WriteItem,
)
from fabric.errors import DeadlineExceeded, FabricError
from fabric.node.effects import Effect, Run

if TYPE_CHECKING:
    from typing import TypeAlias

LANE = "write"
ITEM_BYTES = 256
"""What an item holds besides its payload, about."""

Done: TypeAlias = "Callable[[FabricError | None, float], list[Effect]]"
"""Takes the error (None: durable) and the time."""
Check: TypeAlias = "Callable[[float], FabricError | None]"
"""Takes the time; says why the item may not be written any more."""


class Ticket(msgspec.Struct, eq=False):
    """The token of an item: whom to tell, and until when it is worth writing."""

    done: Done
    expires_at: float
    check: Check | None = None


class WriteQueue:
    """Items that wait for the write lane, and the batch that is in it."""

    def __init__(self) -> None:
        self._waiting: deque[WriteItem] = deque()
        self._running = 0
        self.pending_bytes = 0
        """Of items that wait or are being written."""

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is being written."""
        return not self._waiting and not self._running

    def add(self, item: WriteItem) -> None:
        """Queue an item, whose token is a ``Ticket``."""
        self._waiting.append(item)
        self.pending_bytes += _size(item)

    def take(self, now: float) -> list[Effect]:
        """Start the next batch if the lane is free; answer the items that are not worth it any more."""
        if self._running or not self._waiting:
            return []
        effects: list[Effect] = []
        items: list[WriteItem] = []
        room = BATCH_BYTES_MAX
        while self._waiting and len(items) < BATCH_ITEMS_MAX:
            item = self._waiting[0]
            size = _size(item)
            if items and size > room:
                break
            self._waiting.popleft()
            error = _worthless(item.token, now)
            if error is not None:
                self.pending_bytes -= size
                effects += item.token.done(error, now)
                continue
            room -= size
            items.append(item)
        if items:
            self._running = sum(map(_size, items))
            effects.append(Run(LANE, WriteBatch(items)))
        return effects

    def finish(self, done: WriteDone, now: float) -> list[Effect]:
        """The batch is back: tell everyone."""
        self.pending_bytes -= self._running
        self._running = 0
        effects: list[Effect] = []
        for outcome in done.outcomes:
            effects += outcome.token.done(outcome.error, now)
        return effects


def _worthless(ticket: Ticket, now: float) -> FabricError | None:
    if ticket.expires_at <= now:
        return DeadlineExceeded("the deadline passed before the write began; nothing was written")
    return ticket.check(now) if ticket.check is not None else None


def _size(item: StoreItem | DeleteItem) -> int:
    return ITEM_BYTES + (len(item.payload) if isinstance(item, StoreItem) else 0)
