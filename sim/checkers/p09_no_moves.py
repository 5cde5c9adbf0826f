"""P9: adding a group moves no data.

Groups are formed while others serve already, so: no server ever reads from one of another group.  What an
operator moves from group to group is carried by proxies.
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
        if not isinstance(message, ReadFragment | ListBuckets | ListBucket | StoreFragment):
            return
        told = self.cluster.roster.told
        if any(told.get(process.name, 0) not in (0, message.group) for process in (source, target)):
            raise Violation("P9", f"{source.name} asks {target.name} of another group: {message}")
