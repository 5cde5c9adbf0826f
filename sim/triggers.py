"""Faults that wait for their moment: armed now, done when a certain message passes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from sim.watcher import Watcher

if TYPE_CHECKING:
    from fabric.wire.messages import Message
    from sim.process import Process


class Passing(msgspec.Struct, frozen=True):
    """A message that leaves: a request, or with ``request`` an answer to it."""

    source: Any
    target: Any
    message: Any
    request: Any = None


class _Armed(msgspec.Struct, eq=False):
    wants: Callable[[Passing], bool]
    strike: Callable[[Passing], None]
    left: int


class Triggers(Watcher):
    """Sees all messages; what it does comes after the event in which it saw one."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def arm(
        self, wants: Callable[[Passing], bool], strike: Callable[[Passing], None], times: int = 1
    ) -> None:
        """At the next so many messages for which ``wants`` says yes, strike."""
        self._armed.append(_Armed(wants, strike, times))

    def disarm_all(self) -> None:
        """Nothing waits any more."""
        self._armed.clear()

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        if self._armed:
            self._look(Passing(source, target, message))

    def on_reply(
        self,
        server: Process,
        asker: Process,
        request: Message | None,
        payload: Any,
        answer: Message,
        data: Any,
    ) -> None:
        if self._armed:
            self._look(Passing(server, asker, answer, request))

    def _look(self, passing: Passing) -> None:
        for armed in [armed for armed in self._armed if armed.wants(passing)]:
            armed.left -= 1
            if armed.left == 0:
                self._armed.remove(armed)
            self.cluster.world.after(0.0, partial(armed.strike, passing))
