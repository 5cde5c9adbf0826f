"""P1: an acknowledged write is on stable storage of every replica of its group, with the same bytes.

Looked up on the simulated disks, at the moment when the acknowledgement leaves the proxy: the payload must
be among the bytes that a power cut cannot take.  And whenever a server starts again on the same disk, it must
know every acknowledged fragment that it has confirmed: a flipped bit may cost it what was written together
with the damaged record, and no more.
"""

from __future__ import annotations

from typing import Any

from fabric.wire.messages import (
    Committed,
    Message,
    PutFragment,
    PutObject,
    Stored,
)
from sim import stores
from sim.checkers.ledger import Ledger
from sim.hosts import ChunkHost
from sim.process import Process
from sim.watcher import Violation

WINDOW_S = 20.0
"""A disk that was replaced or damaged within so long may have lost it since the replica confirmed it."""


class Durable(Ledger):
    """Looks at the disks."""

    def __init__(self) -> None:
        super().__init__()
        self._confirmed_by: dict[tuple[str, bytes], set[int]] = {}
        """Of a server's disk: what it has confirmed."""
        self._payloads: dict[int, bytes] = {}
        self._epochs: dict[int, int] = {}
        """fid -> the epoch that it was stored in."""
        self._places: dict[bytes, set[tuple[int, int]]] = {}
        """Payload -> groups and epochs that it was stored in."""

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        super().on_send(source, target, message, payload)
        for fragment, epoch, data in stores.sent(message, payload):
            self._payloads[fragment.fid] = data
            if source.kind == "proxy":
                self._epochs[fragment.fid] = epoch
                self._places.setdefault(data, set()).add((fragment.group, epoch))

    def on_reply(
        self,
        server: Process,
        asker: Process,
        request: Message | None,
        payload: Any,
        answer: Message,
        data: Any,
    ) -> None:
        super().on_reply(server, asker, request, payload, answer, data)
        for _, _, fid in stores.confirmed(answer):
            host = self.cluster.chunks[server.name]
            self._confirmed_by.setdefault((host.name, host.uuid), set()).add(fid)
        if isinstance(answer, Stored) and isinstance(request, PutFragment):
            ref = answer.fragment
            missing = self._missing(ref.group, self._epochs[ref.fid], payload)
            what = f"fragment {answer.fragment.fid} of group {answer.fragment.group}"
        elif isinstance(answer, Committed) and isinstance(request, PutObject) and payload:
            places = self._places.get(bytes(payload), set())
            # Stored long ago by an earlier try, it may have moved with its group's members since.
            places = places | {(group, 0) for group, _ in places}
            everywhere = [host.name for host in self.cluster.running()]
            missing = min((self._missing(*place, payload) for place in places), key=len, default=everywhere)
            what = f"object {request.path}"
        else:
            return
        if missing:
            raise Violation("P1", f"{what} was acknowledged and is not on stable storage of {missing}")

    def on_started(self, process: Process) -> None:
        if process.kind != "chunk":
            return
        host = self.cluster.chunks[process.name]
        live = host.live()
        confirmed = self._confirmed_by.get((host.name, host.uuid), ())
        forgotten = [
            fid
            for fid in sorted(confirmed)
            if self._should_hold(host, fid) and (fid not in live or not host.holds(self._payloads[fid]))
        ]
        if len(forgotten) > host.flips * host.largest_batch:
            text = f"starts with {host.flips} flipped bits and has forgotten {len(forgotten)} fragments"
            raise Violation("P1", f"{host.name} {text}: {forgotten[:10]}")

    def _should_hold(self, host: ChunkHost, fid: int) -> bool:
        return self.counts(fid) and host in self.cluster.members(self.known[fid].ref.group)

    def _missing(self, group: int, epoch: int, payload: bytes) -> list[str]:
        hosts = self.cluster.members(group, epoch)
        return [host.name for host in hosts if not self._excused(host) and not host.holds(payload)]

    def _excused(self, host: ChunkHost) -> bool:
        now = self.cluster.world.now
        changed_at = max(host.replaced_at, host.flipped_at)
        return changed_at > 0 and now - changed_at < WINDOW_S
