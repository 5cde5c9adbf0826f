"""Work that nobody waits for, a little at a time: deletions, old operation ids, tasks, events."""

from __future__ import annotations

from fabric.master.deletion import Deletion
from fabric.master.delta import DeltaStore
from fabric.master.journal import After, Journal
from fabric.master.operation_ids import OperationIds
from fabric.master.orders import Orders
from fabric.node.effects import Effect

PAUSE_S = 0.05
"""Between two steps, so that requests come first."""


class Upkeep:
    """At most one step under way; the next one at its due time, or after a pause."""

    def __init__(
        self, journal: Journal, deletion: Deletion, operation_ids: OperationIds, orders: Orders
    ) -> None:
        self._journal = journal
        self._deletion = deletion
        self._operation_ids = operation_ids
        self._orders = orders
        self._running = False
        self._pause_until = 0.0

    def on_tick(self, now: float) -> list[Effect]:
        """Take a step when one is due."""
        due = self.next_deadline()
        if due is None or due > now:
            return []
        self._running = True
        self._journal.submit(self._step)
        return []

    def next_deadline(self) -> float | None:
        """When the next step is due."""
        if self._running:
            return None
        waiting = self._deletion, self._operation_ids, self._orders
        dues = [due for due in (each.due_at() for each in waiting) if due is not None]
        return max(min(dues), self._pause_until) if dues else None

    def _step(self, delta: DeltaStore, now: float) -> After:
        expanded = self._deletion.expand(delta, now)
        self._operation_ids.trim(delta, now)
        looked = self._orders.step(delta, now)

        def on_durable(now: float) -> list[Effect]:
            expanded()
            looked(now)
            self._running = False
            self._pause_until = now + PAUSE_S
            return []

        return on_durable
