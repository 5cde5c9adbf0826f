"""What each hook wants to be told: known in the store, so that everybody who commits knows it.

Registries that were started with a file of hooks write its wishes to ``meta/hooks``, and confirm them from
time to time.  Commands and registries without the file read them there.  Wishes that nobody has confirmed
for longer than events are kept are void: then nobody would deliver, and nothing shall pile up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.access.patterns import Patterns, repository_patterns
from fabric.driver.registry.hooks.changes import Action
from fabric.driver.registry.hooks.decoding import decoded
from fabric.errors import NotFound
from fabric.settings import KIB

WISHES_PATH = "meta/hooks"
WISHES_BYTES_MAX = 256 * KIB

CONFIRM_S = 60.0
"""Registries confirm the wishes about so often."""

VOID_AFTER_S = 600.0
"""Beyond the time for which a hook's events are kept."""


@lru_cache(maxsize=64)
def _patterns(texts: tuple[str, ...]) -> Patterns:
    return repository_patterns(texts)


class Wish(msgspec.Struct, frozen=True):
    """What one hook wants."""

    name: str
    events: tuple[Action, ...]
    repositories: tuple[str, ...]
    """Patterns, as an access file writes them."""
    retry_for_s: float
    """For so long an event is kept for it."""

    def wants(self, action: Action, repository: str) -> bool:
        """Whether it is to be told of this."""
        return action in self.events and _patterns(self.repositories).match(repository)


class Wishes(msgspec.Struct, frozen=True):
    """What all hooks want."""

    hooks: tuple[Wish, ...] = ()
    confirmed_ms: int = 0
    """When a registry that delivers them last said so; wall clock."""

    def in_force(self, now_ms: int) -> dict[str, Wish]:
        """Those that somebody may still deliver, by name."""
        age_s = (now_ms - self.confirmed_ms) / 1000
        return {each.name: each for each in self.hooks if age_s < each.retry_for_s + VOID_AFTER_S}


async def read_wishes(store: ObjectStore) -> Wishes:
    """What the store says; no hooks where it says nothing.  Raises FabricError."""
    try:
        _, data = await store.read(WISHES_PATH, WISHES_BYTES_MAX)
    except NotFound:
        return Wishes()
    return decoded(data, Wishes, WISHES_PATH)


async def publish_wishes(store: ObjectStore, hooks: Sequence[Wish], now_ms: int) -> None:
    """Let everybody know, unless the store has said the same until a moment ago."""
    known = await read_wishes(store)
    is_same = known.hooks == tuple(hooks)
    if is_same and (not hooks or 0 <= now_ms - known.confirmed_ms < CONFIRM_S * 1000):
        return
    await store.put(WISHES_PATH, msgspec.json.encode(Wishes(tuple(hooks), now_ms)))


def merged(own: Sequence[Wish], known: Mapping[str, Wish]) -> dict[str, Wish]:
    """A process's own hooks, and those that others have told of."""
    return {**known, **{each.name: each for each in own}}
