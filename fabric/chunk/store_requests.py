"""What proxies ask to be stored, one fragment or several: queued to be written, answered when durable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from fabric.chunk.jobs import Outcome, StoreItem, StoreSeveral
from fabric.chunk.standing import Standing
from fabric.chunk.write_queue import Check, Ticket, WriteQueue
from fabric.errors import BadRequest, Busy, FabricError
from fabric.node.effects import Effect, Payload, Reply, Sender, Unread
from fabric.settings import KIB, Settings
from fabric.wire.codec import failed
from fabric.wire.messages import (
    FragmentRefusal,
    FragmentsStored,
    FragmentStored,
    Message,
    StoreFragment,
    StoreFragments,
)

LARGE_BYTES = 64 * KIB
"""Writes and reads of so much begin at once; smaller ones wait for what else has come, to share a batch."""


class StoreRequests:
    """Used by the role for ``StoreFragment`` and ``StoreFragments``.  What is refused at once is raised."""

    def __init__(self, server: str, standing: Standing, writes: WriteQueue, settings: Settings) -> None:
        self._server = server
        self._standing = standing
        self._writes = writes
        self._bytes_max = settings.chunk_inflight_bytes_max

    def one(self, m: StoreFragment, sender: Sender, now: float, payload: Payload) -> list[Effect]:
        """Raises StaleEpoch, NotWritable, Busy."""
        check = self._admit(m, len(payload), now)
        length = len(payload)

        def stored(outcome: Outcome) -> FragmentStored:
            return FragmentStored(m.group, m.epoch, m.fid, length, m.checksum)

        ticket = _ticket(m, sender, now, check, stored)
        stays_warm = self._standing.is_warm(m.fid, length)
        self._writes.add(StoreItem(ticket, m.fid, m.group, m.epoch, m.checksum, payload, stays_warm))
        return self._writes.take(now) if length >= LARGE_BYTES else []

    def several(self, m: StoreFragments, sender: Sender, now: float, payload: Payload) -> list[Effect]:
        """Raises StaleEpoch, NotWritable, Busy, BadRequest."""
        lengths = [fragment.length for fragment in m.fragments]
        if not lengths or isinstance(payload, Unread) or sum(lengths) != len(payload):
            raise BadRequest("the payload is not the bytes of these fragments")
        if not all(lengths) or any(fragment.group != m.group for fragment in m.fragments):
            raise BadRequest(f"each of these fragments must have bytes and be of group {m.group}")
        check = self._admit(m, len(payload), now)
        ticket = _ticket(m, sender, now, check, lambda outcome: _stored(m, outcome.refused))
        data = memoryview(payload)  # type: ignore[arg-type]
        self._writes.add(StoreSeveral(ticket, m.group, m.epoch, m.fragments, data))
        return []

    def _admit(self, m: StoreFragment | StoreFragments, length: int, now: float) -> Check:
        """What says later whether this is still wanted."""
        refusal = self._standing.refusal(m.group, m.epoch, now)
        if refusal is not None:
            raise refusal
        if self._writes.pending_bytes + length > self._bytes_max:
            raise Busy(f"{self._server} has {self._writes.pending_bytes} bytes to write")
        return partial(self._standing.refusal, m.group, m.epoch)


def _ticket(
    m: StoreFragment | StoreFragments,
    sender: Sender,
    now: float,
    check: Check,
    stored: Callable[[Outcome], Message],
) -> Ticket:
    """Answers with what ``stored`` says of an outcome without an error."""

    def on_done(outcome: Outcome, now: float) -> list[Effect]:
        # Durable, but is it still wanted?  See ``standing``.
        refusal = outcome.error or check(now)
        return [Reply(sender, failed(refusal) if refusal is not None else stored(outcome))]

    return Ticket(on_done, now + m.deadline_ms / 1000, check)


def _stored(m: StoreFragments, refused: Mapping[int, FabricError]) -> FragmentsStored:
    if not refused:
        return FragmentsStored(m.group, m.epoch, m.fragments, [])
    return FragmentsStored(
        m.group,
        m.epoch,
        [fragment for at, fragment in enumerate(m.fragments) if at not in refused],
        [
            FragmentRefusal(m.fragments[at].fid, error.code, error.message[:1000])
            for at, error in refused.items()
        ],
    )
