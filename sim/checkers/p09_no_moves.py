"""P9: adding a group moves no data.

Groups are formed while others serve already, so: no server ever reads from one of another group, and no
proxy carries a fragment from group to group unless an operator has ordered that something moves.
"""

from __future__ import annotations

from typing import Any

from fabric.wire.messages import (
    ListBucket,
    ListBuckets,
    Message,
    ReadFragment,
    Relocate,
    StoreFragment,
    StoreFragments,
)
from sim.process import Process
from sim.watcher import Violation, Watcher

_MOVING = {"drain-group", "rebalance"}
"""Tasks that move fragments to other groups."""


class NoMoves(Watcher):
    """Watches the traffic between chunk servers."""

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        if isinstance(message, Relocate) and not _MOVING & self.cluster.operator.ordered:
            raise Violation("P9", f"{source.name} moves what nobody wants moved: {message}")
        if source.kind != "chunk" or target.kind != "chunk":
            return
        kinds = ReadFragment | ListBuckets | ListBucket | StoreFragment | StoreFragments
        if not isinstance(message, kinds):
            return
        told = self.cluster.roster.told
        if any(told.get(process.name, 0) not in (0, message.group) for process in (source, target)):
            raise Violation("P9", f"{source.name} asks {target.name} of another group: {message}")
