"""Copying single fragments from peers: for catching up, and for repairing a damaged copy.

A pulled fragment is trusted for nothing: its length is held against what was announced here, its
checksum by the engine, like that of any fragment to be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fabric.chunk.jobs import Outcome, StoreItem
from fabric.chunk.standing import Standing
from fabric.chunk.write_queue import Ticket, WriteQueue
from fabric.node.calls import Calls
from fabric.node.effects import Effect, Payload
from fabric.wire.messages import BucketEntry, FragmentData, Message, ReadFragment

if TYPE_CHECKING:
    from typing import TypeAlias

READ_TIMEOUT_MS = 10_000

Then: TypeAlias = "Callable[[bool, float], list[Effect]]"
"""Takes whether the fragment is settled here now (stored, or refused for good), and the time."""


class Puller:
    """Fetches fragments and stores them."""

    def __init__(self, calls: Calls, writes: WriteQueue, standing: Standing) -> None:
        self._calls = calls
        self._writes = writes
        self._standing = standing

    def pull(self, entry: BucketEntry, endpoints: Sequence[str], now: float, then: Then) -> list[Effect]:
        """Get a fragment from the first of these peers that gives a good copy."""
        if not endpoints or not self._standing.group:
            # Nobody is left to ask, or this server was taken out of its group: those are no peers any more.
            return then(False, now)

        def on_next(now: float) -> list[Effect]:
            return self.pull(entry, endpoints[1:], now, then)

        def on_answer(message: Message, payload: Payload | None, now: float) -> list[Effect]:
            if not isinstance(message, FragmentData) or payload is None or len(payload) != entry.length:
                return on_next(now)
            return self._store(entry, payload, now, on_next, then)

        request = ReadFragment(READ_TIMEOUT_MS, self._standing.group, entry.fid, 0, entry.length)
        return [self._calls.start(endpoints[0], request, now, on_answer)]

    def _store(
        self,
        entry: BucketEntry,
        payload: Payload,
        now: float,
        on_next: Callable[[float], list[Effect]],
        then: Then,
    ) -> list[Effect]:
        def on_done(outcome: Outcome, now: float) -> list[Effect]:
            code = outcome.error.code if outcome.error is not None else ""
            if code == "BAD_CHECKSUM":
                return on_next(now)
            # CONFLICT: deleted here in the meantime.
            return then(code in ("", "CONFLICT"), now)

        ticket = Ticket(on_done, expires_at=float("inf"))
        standing = self._standing
        self._writes.add(
            StoreItem(
                ticket,
                entry.fid,
                standing.group,
                standing.epoch,
                entry.checksum,
                payload,
                stays_warm=standing.is_warm(entry.fid, len(payload)),
            )
        )
        return []
