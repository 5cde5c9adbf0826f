"""Answers to recent commits, so that repeating one changes nothing.

The answer is stored in the same batch as the commit.  Entries are forgotten by age, oldest first; a
restart counts their age anew, in the order of their commits.  Refused commits changed nothing and
are not remembered.
"""

from __future__ import annotations

from collections import deque

from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.records import decode_committed, encode
from fabric.master.store import Reader
from fabric.wire.messages import Committed

KEEP_S = 15 * 60.0
"""Far longer than anybody goes on repeating a commit."""
ENTRIES_MAX = 200_000
"""Beyond that many, the oldest go before their time."""
TRIM_MAX = 1_000
"""Entries forgotten in one step."""
_SCAN = 10_000


class OperationIds:
    """What is in the store under ``i/``, and when each of it may go."""

    def __init__(self, keep_s: float = KEEP_S, entries_max: int = ENTRIES_MAX) -> None:
        self._keep_s = keep_s
        self._entries_max = entries_max
        self._ages: deque[tuple[float, bytes]] = deque()
        self._known: set[bytes] = set()
        """Those with an answer in the store or on its way there: all others need no look."""

    def __len__(self) -> int:
        return len(self._ages)

    def load(self, store: Reader, now: float) -> None:
        """Take up what an earlier life of the master remembered."""
        found: list[tuple[int, bytes]] = []
        start, stop = keys.OPERATIONS, keys.after_all(keys.OPERATIONS)
        while pairs := store.scan(start, stop, _SCAN):
            found += [(keys.to_number(value), key[len(keys.OPERATIONS) :]) for key, value in pairs]
            start = pairs[-1][0] + b"\0"
        self._ages = deque((now + self._keep_s, operation_id) for _, operation_id in sorted(found))
        self._known = {operation_id for _, operation_id in found}

    def find(self, store: Reader, operation_id: bytes) -> Committed | None:
        """The answer that this operation had before."""
        if operation_id not in self._known:
            return None
        value = store.get(keys.operation_key(operation_id))
        return None if value is None else decode_committed(memoryview(value)[8:])

    def remember(self, delta: DeltaStore, operation_id: bytes, number: int, answer: Committed) -> None:
        """Store an answer; ``number`` orders the entries of one age."""
        delta.put(keys.operation_key(operation_id), keys.number(number) + encode(answer))
        self._known.add(operation_id)

    def on_durable(self, operation_id: bytes, now: float) -> None:
        """The answer is stored: its age begins."""
        self._ages.append((now + self._keep_s, operation_id))

    def due_at(self) -> float | None:
        """When ``trim`` next has something to do."""
        if len(self._ages) > self._entries_max:
            return 0.0
        return self._ages[0][0] if self._ages else None

    def trim(self, delta: DeltaStore, now: float) -> None:
        """Forget what is old enough, a bounded number at a time."""
        for _ in range(TRIM_MAX):
            due = self.due_at()
            if due is None or due > now:
                return
            operation_id = self._ages.popleft()[1]
            delta.delete(keys.operation_key(operation_id))
            self._known.discard(operation_id)
