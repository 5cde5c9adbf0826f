"""Keepers: processes that answer from copies of names, as registries do.

Each watches, and looks names up all the time.  What it finds in its cache must be possible at that very
moment: once the writer of a name knows that it was replaced or removed, no keeper may say anything else.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from fabric.driver.name_cache import NameCache
from fabric.node.effects import Effect
from fabric.wire.messages import Changes, Found, Message, Stat, Watch
from sim.clients import Client
from sim.process import Built, Process
from sim.watcher import Violation

if TYPE_CHECKING:
    from sim.history import History
    from sim.world import World

THINK_S = (0.005, 0.1)
CACHE_BYTES = 64 * 1024
HOT_SHARE = 0.8
"""Of look-ups are of names that are replaced now and then."""


class Keeper(Client):
    """A cache of names, and somebody who asks it."""

    def __init__(
        self, world: World, name: str, rng: random.Random, proxies: list[str], history: History
    ) -> None:
        super().__init__(rng, proxies)
        self.world, self.name, self.history = world, name, history
        self.hits = 0
        self.working = True
        self.begin_life()

    def begin_life(self) -> None:
        super().begin_life()
        self._cache = NameCache(CACHE_BYTES)
        self._watcher = self.rng.randbytes(16)
        self._seen = 0

    def start(self, now: float) -> list[Effect]:
        self.now = now
        return [*self._watch(), *self._think()]

    # --- watching, as fabric.driver.watching does ---------------------------------------------------

    def _watch(self) -> list[Effect]:
        if not self.working:
            return self.wait(0.5, self._watch)
        asked_at = self.now

        def on_answer(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            if isinstance(answer, Changes):
                self._cache.on_changes(answer, asked_at)
                self._seen = answer.sequence
                return self._watch()
            return self.wait(0.2, self._watch)

        watcher, seen = self._watcher, self._seen
        return self.ask(lambda ms: Watch(ms, watcher, seen, [""]), None, self.now + 2.0, on_answer)

    # --- looking names up, as fabric.driver.registry.lookups does -----------------------------------

    def _think(self) -> list[Effect]:
        return self.wait(self.rng.uniform(*THINK_S), self._look)

    def _look(self) -> list[Effect]:
        paths = list(self.history.paths) if self.working else []
        if self.rng.random() < HOT_SHARE:
            paths = [path for path in paths if "/tag-" in path]
        if not paths:
            return self._think()
        path = self.rng.choice(paths)
        info = self._cache.find(path, self.now)
        if info is None:
            return self._ask(path)
        self.hits += 1
        possible = {None if value is None else len(value) for value in self.history.paths[path].possible}
        if info.size not in possible:
            raise Violation("P2", f"{self.name} still says {info.size} bytes of {path}; possible: {possible}")
        return self._think()

    def _ask(self, path: str) -> list[Effect]:
        told = self._cache.told

        def on_answer(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            if isinstance(answer, Found):
                self._cache.keep(answer.info, told)
            return self._think()

        return self.ask(lambda ms: Stat(ms, path), None, self.now + 3.0, on_answer)


def make_keeper(world: World, number: int, proxies: list[str], history: History) -> Keeper:
    """A keeper and its process."""
    name = f"keeper-{number}"
    keeper = Keeper(world, name, random.Random(f"{world.seed} {name}"), proxies, history)

    def build(process: Process) -> Built:
        keeper.begin_life()
        return Built(keeper)

    keeper.process = Process(world, name, f"tcp://{name}:1", build, "keeper")
    return keeper
