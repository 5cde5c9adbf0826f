"""What checkers can see: messages as they are sent, clients' histories, and the cluster at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fabric.wire.messages import Message

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.history import PathState
    from sim.process import Process
    from sim.workload import Attempted


class Violation(Exception):
    """A promise was broken."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise


class Watcher:
    """A checker overrides what it wants to see, and raises Violation."""

    def attach(self, cluster: Cluster) -> None:
        """Called once, before anything happens."""
        self.cluster = cluster

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        """A request leaves ``source``."""

    def on_reply(
        self,
        server: Process,
        asker: Process,
        request: Message | None,
        payload: Any,
        answer: Message,
        data: Any,
    ) -> None:
        """An answer leaves ``server``.  ``request`` is None for what nobody asked for."""

    def on_inspect(self, process: Process) -> None:
        """A role has handled an event."""

    def on_started(self, process: Process) -> None:
        """A life of a process has begun, and has done nothing yet."""

    def on_write_ended(self, attempted: Attempted) -> None:
        """A client knows, or gives up to know, what became of a write."""

    def on_read(self, state: PathState, code: str, value: bytes | None, allowed: set[bytes | None]) -> None:
        """A client has read a whole object: ``code`` is empty, or NOT_FOUND, or that of another error."""

    def at_end(self) -> None:
        """All faults are over, the cluster has healed, clients are idle."""


class Watchers:
    """The checkers of a run; only the methods that they override are called."""

    def __init__(self) -> None:
        self.all: list[Watcher] = []
        self.sends: list[Callable[..., None]] = []
        self.replies: list[Callable[..., None]] = []
        self.inspects: list[Callable[..., None]] = []
        self.starts: list[Callable[..., None]] = []
        self.reads: list[Callable[..., None]] = []
        self.writes: list[Callable[..., None]] = []

    def add(self, watcher: Watcher) -> None:
        """Let it see everything from now on."""
        self.all.append(watcher)
        for calls, name in (
            (self.sends, "on_send"),
            (self.replies, "on_reply"),
            (self.inspects, "on_inspect"),
            (self.reads, "on_read"),
            (self.starts, "on_started"),
            (self.writes, "on_write_ended"),
        ):
            if getattr(type(watcher), name) is not getattr(Watcher, name):
                calls.append(getattr(watcher, name))
