"""Who is in which group: what the master told the chunk servers, and what it holds for true in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fabric.wire.messages import Assignment, Message
from sim.watcher import Watcher

if TYPE_CHECKING:
    from sim.process import Process


class Roster(Watcher):
    """Remembers assignments."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}
        """Server -> the group that it was last told; 0: none."""
        self._writers: dict[tuple[int, int], tuple[str, ...]] = {}
        """(group, epoch) -> members, of epochs in which any was told to take writes."""
        self._newest: dict[int, int] = {}

    def on_reply(
        self,
        server: Process,
        asker: Process,
        request: Message | None,
        payload: Any,
        answer: Message,
        data: Any,
    ) -> None:
        if not isinstance(answer, Assignment):
            return
        self.told[asker.name] = answer.group
        if answer.mode == "RW":
            self._writers[answer.group, answer.epoch] = tuple(member.server for member in answer.members)
            self._newest[answer.group] = max(answer.epoch, self._newest.get(answer.group, 0))

    def writers(self, group: int, epoch: int = 0) -> tuple[str, ...]:
        """Members of a writable epoch; 0: of the newest.  Empty when there was none."""
        return self._writers.get((group, epoch or self._newest.get(group, 0)), ())
