"""Processes whose commits are announced, and couriers with a clock that stands still."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from fabric.driver.registry.collection import Policy
from fabric.driver.registry.hooks.courier import Clocks, Courier
from fabric.driver.registry.hooks.envelope import Event
from fabric.driver.registry.hooks.outbox import Announcer, Entry, Source, entry_of, outbox_prefix
from fabric.driver.registry.hooks.wishes import Wish
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import AT_ONCE, Clock, Process

CI = Wish("ci", ("push", "delete"), ("**",), 3600.0)
SOURCE = Source("registry.test:5000", "instance")


def announcing(store: Any, clock: Clock, *wishes: Wish, who: str = "") -> Announcer:
    async def known() -> Mapping[str, Wish]:
        return {each.name: each for each in wishes}

    return Announcer(store, known, SOURCE, clock.wall_ms, clock.new_id, who)


def process(store: Any, clock: Clock, *wishes: Wish, policy: Policy = AT_ONCE, who: str = "") -> Process:
    """A registry process, or a command, over a store whose commits are announced."""
    return Process(announcing(store, clock, *(wishes or (CI,)), who=who), clock, policy)


def entries(store: MemoryStore, hook: str = "ci") -> list[Entry]:
    """What waits for a hook, in the order of the commits."""
    infos = [store._info(path) for path in store.paths(outbox_prefix(hook))]
    return [entry_of(info) for info in sorted(infos, key=lambda info: info.generation)]


class Target:
    """A receiver: remembers what it got, and fails as it is told."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.asked: list[int] = []
        """Events in each request, those that failed too."""
        self.errors: list[str] = []
        """What to say next; nothing: it takes everything."""
        self.is_down = False

    async def send(self, events: Sequence[Event]) -> str:
        self.asked.append(len(events))
        error = self.errors.pop(0) if self.errors else "down" if self.is_down else ""
        if not error:
            self.got += events
        return error

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.got]


class Carrier:
    """A courier of one process."""

    def __init__(self, store: Any, clock: Clock, target: Target, me: str = "me", wish: Wish = CI) -> None:
        self.warnings: list[str] = []
        clocks = Clocks(clock.monotonic_s, clock.wall_ms, random.Random(1))
        self.courier = Courier(store, wish, "", target.send, 5.0, me, clocks, self.warnings.append)

    async def step(self) -> float:
        return await self.courier.step()
