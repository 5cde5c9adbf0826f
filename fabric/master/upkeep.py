"""Work that nobody waits for, a little at a time: deletions, and operation ids that are old enough."""

from __future__ import annotations

from fabric.master.deletion import Deletion
from fabric.master.delta import DeltaStore
from fabric.master.journal import After, Journal
from fabric.master.operation_ids import OperationIds
from fabric.node.effects import Effect

PAUSE_S = 0.05
"""Between two steps, so that requests come first."""


class Upkeep:
    """At most one step under way; the next one at its due time, or after a pause."""

    def __init__(self, journal: Journal, deletion: Deletion, operation_ids: OperationIds) -> None:
        self._journal = journal
        self._deletion = deletion
        self._operation_ids = operation_ids
        self._running = False
        self._pause_until = 0.0

    def on_tick(self, now: float) -> list[Effect]:
        """Take a step when one is due."""
        due = self.next_deadline()
        if due is None or due > now:
            return []
        self._running = True
        return self._journal.submit(self._step, now)

    def next_deadline(self) -> float | None:
        """When the next step is due."""
        if self._running:
            return None
        dues = [due for due in (self._deletion.due_at(), self._operation_ids.due_at()) if due is not None]
        return max(min(dues), self._pause_until) if dues else None

    def _step(self, delta: DeltaStore, now: float) -> After:
        expanded = self._deletion.expand(delta, now)
        self._operation_ids.trim(delta, now)

        def on_durable(now: float) -> list[Effect]:
            expanded()
            self._running = False
            self._pause_until = now + PAUSE_S
            return []

        return on_durable
