"""P9: adding a group moves no data.

Groups are formed while others serve already, so: no server ever reads from one of another group, and every
fragment stays in the group that it was stored in.  Draining and moving have no code yet, and no check.
"""

from __future__ import annotations

from typing import Any

from fabric.wire.messages import ListBucket, ListBuckets, Message, ReadFragment, StoreFragment
from sim.process import Process
from sim.watcher import Violation, Watcher


class NoMoves(Watcher):
    """Watches the traffic between chunk servers."""

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        if source.kind != "chunk" or target.kind != "chunk":
            return
        one, other = self.cluster.chunks[source.name], self.cluster.chunks[target.name]
        moves = isinstance(message, ReadFragment | ListBuckets | ListBucket | StoreFragment)
        if moves and one.group != other.group:
            raise Violation("P9", f"{source.name} asks {target.name} of another group: {message}")
