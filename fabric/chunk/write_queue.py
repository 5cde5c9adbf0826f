"""Group commit: what arrives while a batch is being written goes into the next one, together.

An idle disk writes at once; a busy one gets larger batches by itself, with no timer.  The bytes held
here are bounded for clients; what the server itself adds (pulled fragments, deletions) has its own bounds.

``take`` follows every turn, so what it finds new was added about at that time.
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
    Outcome,
    StoreItem,
    StoreSeveral,
    WriteBatch,
    WriteDone,
    WriteItem,
    count,
)
from fabric.errors import DeadlineExceeded, FabricError
from fabric.node.effects import Effect, Run

if TYPE_CHECKING:
    from typing import TypeAlias

LANE = "write"
ITEM_BYTES = 256
"""What an item holds besides its payload, about."""

Done: TypeAlias = "Callable[[Outcome, float], list[Effect]]"
"""Takes what became of the item, and the time."""
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
        self._added_at: deque[float] = deque()
        """Of each item in ``_waiting`` that ``take`` has seen."""
        self._running = 0
        self._batch: list[WriteItem] = []
        """What the lane is at."""
        self._batch_added_at = 0.0
        """When its oldest item was added."""
        self.stored_count = 0
        """Fragments stored since the start."""
        self.stored_bytes = 0
        self.pending_bytes = 0
        """Of items that wait or are being written."""

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is being written."""
        return not self._waiting and not self._running

    @property
    def pending(self) -> int:
        """Fragments and tombstones that wait or are being written."""
        return sum(map(count, self._waiting)) + sum(map(count, self._batch))

    def oldest_s(self, now: float) -> float:
        """For how long the oldest of them has waited; 0 when there is none."""
        if self._batch:
            return now - self._batch_added_at
        return now - self._added_at[0] if self._added_at else 0.0

    def add(self, item: WriteItem) -> None:
        """Queue an item, whose token is a ``Ticket``."""
        self._waiting.append(item)
        self.pending_bytes += _size(item)

    def take(self, now: float) -> list[Effect]:
        """Start the next batch if the lane is free; answer the items that are not worth it any more."""
        self._added_at.extend([now] * (len(self._waiting) - len(self._added_at)))
        if self._running or not self._waiting:
            return []
        effects: list[Effect] = []
        items: list[WriteItem] = []
        room, count_room = BATCH_BYTES_MAX, BATCH_ITEMS_MAX
        while self._waiting and count_room > 0:
            item = self._waiting[0]
            size = _size(item)
            if items and size > room:
                break
            self._waiting.popleft()
            added_at = self._added_at.popleft()
            error = _worthless(item.token, now)
            if error is not None:
                self.pending_bytes -= size
                effects += item.token.done(Outcome(item.token, error), now)
                continue
            room -= size
            count_room -= count(item)
            if not items:
                self._batch_added_at = added_at
            items.append(item)
        if items:
            self._batch = items
            self._running = BATCH_BYTES_MAX - room
            effects.append(Run(LANE, WriteBatch(items)))
        return effects

    def finish(self, done: WriteDone, now: float) -> list[Effect]:
        """The batch is back: tell everyone."""
        self.pending_bytes -= self._running
        self._running = 0
        effects: list[Effect] = []
        batch, self._batch = self._batch, []
        for item, outcome in zip(batch, done.outcomes, strict=True):
            if outcome.error is None and not isinstance(item, DeleteItem):
                self._count_stored(item, outcome)
            effects += outcome.token.done(outcome, now)
        return effects

    def _count_stored(self, item: StoreItem | StoreSeveral, outcome: Outcome) -> None:
        self.stored_count += count(item) - len(outcome.refused)
        self.stored_bytes += len(item.payload)
        if isinstance(item, StoreSeveral):
            self.stored_bytes -= sum(item.fragments[at].length for at in outcome.refused)

    def refuse_waiting(self, error: FabricError, now: float) -> tuple[int, list[Effect]]:
        """Refuse everything that has not begun; how many fragments and tombstones those were.

        The batch goes on.
        """
        refused = list(self._waiting)
        self._waiting.clear()
        self._added_at.clear()
        effects: list[Effect] = []
        for item in refused:
            self.pending_bytes -= _size(item)
            effects += item.token.done(Outcome(item.token, error), now)
        return sum(map(count, refused)), effects


def _worthless(ticket: Ticket, now: float) -> FabricError | None:
    if ticket.expires_at <= now:
        return DeadlineExceeded("the deadline passed before the write began; nothing was written")
    return ticket.check(now) if ticket.check is not None else None


def _size(item: WriteItem) -> int:
    if isinstance(item, DeleteItem):
        return ITEM_BYTES
    return ITEM_BYTES * count(item) + len(item.payload)
