"""What proxies ask to be stored, one fragment or several: queued to be written, answered when durable."""

from __future__ import annotations

from functools import partial
from itertools import accumulate

from fabric.chunk.jobs import StoreItem
from fabric.chunk.standing import Standing
from fabric.chunk.write_queue import Check, Ticket, WriteQueue
from fabric.errors import BadRequest, Busy, FabricError
from fabric.node.effects import Effect, Payload, Reply, Sender, Unread
from fabric.settings import KIB, Settings
from fabric.wire.codec import failed
from fabric.wire.messages import (
    FragmentRef,
    FragmentRefusal,
    FragmentsStored,
    FragmentStored,
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

        def on_done(error: FabricError | None, now: float) -> list[Effect]:
            # Durable, but is it still wanted?  See ``standing``.
            refusal = error or check(now)
            if refusal is not None:
                return [Reply(sender, failed(refusal))]
            return [Reply(sender, FragmentStored(m.group, m.epoch, m.fid, length, m.checksum))]

        ticket = Ticket(on_done, now + m.deadline_ms / 1000, check)
        stays_warm = self._standing.is_warm(m.fid, length)
        self._writes.add(StoreItem(ticket, m.fid, m.group, m.epoch, m.checksum, payload, stays_warm))
        return self._writes.take(now) if length >= LARGE_BYTES else []

    def several(self, m: StoreFragments, sender: Sender, now: float, payload: Payload) -> list[Effect]:
        """Raises StaleEpoch, NotWritable, Busy, BadRequest."""
        ends = list(accumulate(fragment.length for fragment in m.fragments))
        if not ends or isinstance(payload, Unread) or ends[-1] != len(payload):
            raise BadRequest("the payload is not the bytes of these fragments")
        if any(fragment.group != m.group or not fragment.length for fragment in m.fragments):
            raise BadRequest(f"each of these fragments must have bytes and be of group {m.group}")
        check = self._admit(m, len(payload), now)
        answer = _Answer(m, sender, check)
        expires_at = now + m.deadline_ms / 1000
        data = memoryview(payload)  # type: ignore[arg-type]
        for fragment, end in zip(m.fragments, ends, strict=True):
            self._writes.add(
                StoreItem(
                    Ticket(partial(answer.on_done, fragment), expires_at, check),
                    fragment.fid,
                    m.group,
                    m.epoch,
                    fragment.checksum,
                    data[end - fragment.length : end],
                    self._standing.is_warm(fragment.fid, fragment.length),
                )
            )
        return []

    def _admit(self, m: StoreFragment | StoreFragments, length: int, now: float) -> Check:
        """What says later whether this is still wanted."""
        refusal = self._standing.refusal(m.group, m.epoch, now)
        if refusal is not None:
            raise refusal
        if self._writes.pending_bytes + length > self._bytes_max:
            raise Busy(f"{self._server} has {self._writes.pending_bytes} bytes to write")
        return partial(self._standing.refusal, m.group, m.epoch)


class _Answer:
    """Gathers what became of the fragments of one request; given when all are done."""

    def __init__(self, request: StoreFragments, sender: Sender, check: Check) -> None:
        self._request = request
        self._sender = sender
        self._check = check
        self._missing = len(request.fragments)
        self._refused: dict[FragmentRef, FabricError] = {}

    def on_done(self, fragment: FragmentRef, error: FabricError | None, now: float) -> list[Effect]:
        self._missing -= 1
        if error is not None:
            self._refused[fragment] = error
        if self._missing:
            return []
        # As for a single one: durable, but still wanted?
        refusal = self._check(now)
        if refusal is not None:
            return [Reply(self._sender, failed(refusal))]
        return [Reply(self._sender, self._stored())]

    def _stored(self) -> FragmentsStored:
        m = self._request
        if not self._refused:
            return FragmentsStored(m.group, m.epoch, m.fragments, [])
        stored = [fragment for fragment in m.fragments if fragment not in self._refused]
        refused = [
            FragmentRefusal(fragment.fid, error.code, error.message[:1000])
            for fragment, error in self._refused.items()
        ]
        return FragmentsStored(m.group, m.epoch, stored, refused)
