"""P1: an acknowledged write is on stable storage of every replica of its group, with the same bytes.

Looked up on the simulated disks, at the moment when the acknowledgement leaves the proxy: the payload must
be among the bytes that a power cut cannot take.
"""

from __future__ import annotations

from typing import Any

from fabric.wire.messages import Committed, Message, PutFragment, PutObject, Stored
from sim.hosts import ChunkHost
from sim.process import Process
from sim.watcher import Violation, Watcher

WINDOW_S = 20.0
"""A disk that was replaced or damaged within so long may have lost it since the replica confirmed it."""


class Durable(Watcher):
    """Looks at the disks."""

    def on_reply(
        self,
        server: Process,
        asker: Process,
        request: Message | None,
        payload: Any,
        answer: Message,
        data: Any,
    ) -> None:
        if isinstance(answer, Stored) and isinstance(request, PutFragment):
            missing = self._missing(answer.fragment.group, payload)
            what = f"fragment {answer.fragment.fid} of group {answer.fragment.group}"
        elif isinstance(answer, Committed) and isinstance(request, PutObject) and payload:
            missing = min((self._missing(group, payload) for group in self.cluster.groups()), key=len)
            what = f"object {request.path}"
        else:
            return
        if missing:
            raise Violation("P1", f"{what} was acknowledged and is not on stable storage of {missing}")

    def _missing(self, group: int, payload: bytes) -> list[str]:
        hosts = self.cluster.members(group)
        return [host.name for host in hosts if not self._excused(host) and not host.holds(payload)]

    def _excused(self, host: ChunkHost) -> bool:
        now = self.cluster.world.now
        changed_at = max(host.replaced_at, host.flipped_at)
        return changed_at > 0 and now - changed_at < WINDOW_S
