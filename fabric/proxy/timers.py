"""Things to do at a time, unless they are called off before."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from fabric.node.effects import Effect

if TYPE_CHECKING:
    from typing import TypeAlias

Then: TypeAlias = "Callable[[float], list[Effect]]"
"""Takes the time."""


class Timer(msgspec.Struct, eq=False):
    """One thing to do; ``then`` is None once it is called off or done."""

    then: Then | None


class Timers:
    """All of one role."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def start(self, at: float, then: Then) -> Timer:
        """Do it at that time."""
        timer = Timer(then)
        heapq.heappush(self._heap, (at, next(self._numbers), timer))
        return timer

    def on_tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        while (at := self.next_deadline()) is not None and at <= now:
            timer = heapq.heappop(self._heap)[2]
            then, timer.then = timer.then, None
            if then is not None:
                effects += then(now)
        return effects

    def next_deadline(self) -> float | None:
        """The earliest that is not called off."""
        while self._heap and self._heap[0][2].then is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
