"""P6: a chunk server that was away takes no writes until its set equals its peers'.  Nothing deleted
comes back.

Checked when a life of a server confirms its first write in an epoch: it must then hold every fragment of its
group that was acknowledged and not let go.  And after a newer epoch was announced as writable, no write of an
older one may be confirmed by a member: it has sealed all before it.  What a server has once confirmed as
deleted it never serves again, and at the end no member holds what is gone.
"""

from __future__ import annotations

from typing import Any

from fabric.wire.messages import (
    Assignment,
    FragmentData,
    Heartbeat,
    Message,
    ReadFragment,
    StoreFragment,
    StoreFragments,
)
from sim import stores
from sim.checkers.ledger import Ledger
from sim.process import Process
from sim.watcher import Violation


class Rejoin(Ledger):
    """Looks at a server's index when it begins to take writes."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: set[tuple[str, int, int]] = set()
        self._sealed_below: dict[int, int] = {}
        """Group -> the newest epoch announced as writable."""
        self._deleted: dict[tuple[str, bytes], set[int]] = {}
        """Of a server's disk: what it said is deleted."""

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        super().on_send(source, target, message, payload)
        if isinstance(message, Heartbeat) and message.deleted:
            uuid = self.cluster.chunks[source.name].uuid
            self._deleted.setdefault((source.name, uuid), set()).update(message.deleted)

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
        if isinstance(answer, Assignment) and answer.mode == "RW":
            epoch = self._sealed_below.get(answer.group, 0)
            self._sealed_below[answer.group] = max(epoch, answer.epoch)
        elif isinstance(request, StoreFragment | StoreFragments):
            for group, epoch, fid in stores.confirmed(answer):
                self._on_stored(server, group, epoch, fid)
        elif isinstance(answer, FragmentData) and isinstance(request, ReadFragment):
            host = self.cluster.chunks[server.name]
            # A clock that jumps lets tombstones go too early, and until the next audit a fragment may come
            # back from a member that has yet to delete it.
            if not host.wall_offset_s and request.fid in self._deleted.get((server.name, host.uuid), ()):
                raise Violation("P6", f"{server.name} serves fid {request.fid}, which it has deleted")

    def _on_stored(self, server: Process, group: int, epoch: int, fid: int) -> None:
        writable = self._sealed_below.get(group, 0)
        is_member = server.name in self.cluster.roster.writers(group)
        if epoch < writable and is_member:
            text = f"confirms fid {fid} in epoch {epoch} of group {group}"
            raise Violation("P6", f"{server.name} {text}, when epoch {writable} was writable already")
        key = (server.name, server.incarnation, epoch)
        if key in self._begun:
            return
        self._begun.add(key)
        host = self.cluster.chunks[server.name]
        live = host.live()
        for other, known in self.known.items():
            if known.ref.group == group and other not in live and self.counts(other):
                text = f"takes writes in epoch {epoch} and lacks fid {other}"
                raise Violation("P6", f"{server.name} {text}, which was acknowledged")

    def at_end(self) -> None:
        now = self.cluster.world.now
        members = [host for group in self.cluster.groups() for host in self.cluster.members(group)]
        for host in members:
            live = host.live()
            for fid, known in self.known.items():
                if 0 <= known.gone_at < now and fid in live:
                    raise Violation("P6", f"fid {fid} was deleted and is alive on {host.name}")
