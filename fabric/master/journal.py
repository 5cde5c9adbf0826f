"""Group commit: how changes get from memory to the durable store.

A change is a function that writes to a delta and returns what to do once the delta is durable.  While
one batch is being written, changes that arrive wait; then all of them are applied in order to one
delta and written at once.  So nothing is answered or told before it is durable, changes see all that
came before them, and one fsync serves many.

One batch is under way at any time.  A batch that cannot be written ends the process: what is on disk
is unknown then, and only a restart can find out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from fabric.master.delta import DeltaStore
from fabric.master.store import Reader, WriteBatch, Written
from fabric.node.effects import Effect, Exit, Run

CHANGES_PER_BATCH_MAX = 512
"""Applying a batch must not keep heartbeats waiting."""

After: TypeAlias = Callable[[float], list[Effect]]
Change: TypeAlias = Callable[[DeltaStore, float], After]


class Journal:
    """The queue of changes before the lane "store"."""

    def __init__(self, store: Reader) -> None:
        self._store = store
        self._queue: deque[tuple[Change, int]] = deque()
        self._afters: list[After] = []
        self._busy = False
        self.queued_bytes = 0
        """What the queued changes were said to weigh."""

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, change: Change, weight_bytes: int = 0) -> None:
        """Have ``flush`` apply a change as soon as no batch is being written."""
        self._queue.append((change, weight_bytes))
        self.queued_bytes += weight_bytes

    @property
    def is_waiting(self) -> bool:
        """There are changes, and no batch that they would have to wait for."""
        return bool(self._queue) and not self._busy

    def on_written(self, written: Written, now: float) -> list[Effect]:
        """The batch is durable: do what waited for that."""
        if written.error:
            return [Exit(f"the master's store cannot be written: {written.error}")]
        afters, self._afters = self._afters, []
        effects = [effect for after in afters for effect in after(now)]
        self._busy = False
        return effects

    def flush(self, now: float) -> list[Effect]:
        """Apply what waits and begin to write it, unless a batch is being written."""
        effects: list[Effect] = []
        while self._queue and not self._busy:
            self._busy = True
            delta = DeltaStore(self._store)
            afters = [self._apply(delta, now) for _ in range(min(len(self._queue), CHANGES_PER_BATCH_MAX))]
            if delta.changes:
                self._afters = afters
                effects.append(Run("store", WriteBatch(delta.changes)))
            else:
                effects += [effect for after in afters for effect in after(now)]
                self._busy = False
        return effects

    def _apply(self, delta: DeltaStore, now: float) -> After:
        change, weight_bytes = self._queue.popleft()
        self.queued_bytes -= weight_bytes
        return change(delta, now)
