"""The outbox: events that wait for their hooks, written in the commit that makes them happen.

::

    outbox/<hook>/<time>-<random>     what one commit changed, as far as the hook wants to know it

So a process that dies right after its commit loses no event, and one that dies before has none.  An entry
has no bytes of its own, only attributes: it costs one step of the commit and nothing else.  Entries are in
order by their generations; their names sort by wall clock, for people and for what is too old.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.hooks.changes import Change, changes_of
from fabric.driver.registry.hooks.decoding import decoded
from fabric.driver.registry.hooks.origin import Origin, current_origin
from fabric.driver.registry.hooks.wishes import Wish
from fabric.driver.registry.store_layer import StoreLayer
from fabric.wire.messages import AnyOperation, ObjectInfo, PutOperation

OUTBOX_PREFIX = "outbox/"

_PIECE_CHARACTERS = 4000
"""Of an entry's text, in one attribute; the protocol takes 4096."""


class Source(msgspec.Struct, frozen=True):
    """The process that made a commit."""

    addr: str
    """HOST:PORT where it serves; the host's name alone for a command."""
    instance: str
    """Random, new at each start."""


class Entry(msgspec.Struct, frozen=True):
    """What one commit changed, for one hook."""

    token: str
    """Random; the ids of its events are made of it, so that they are the same at each try."""
    at_ms: int
    """Wall clock."""
    changes: tuple[Change, ...]
    origin: Origin
    source: Source


def outbox_prefix(hook: str) -> str:
    """All that waits for a hook."""
    return f"{OUTBOX_PREFIX}{hook}/"


def entry_step(hook: str, entry: Entry) -> PutOperation:
    """The step that writes an entry."""
    text = msgspec.json.encode(entry).decode()
    pieces = [text[start : start + _PIECE_CHARACTERS] for start in range(0, len(text), _PIECE_CHARACTERS)]
    attributes = {f"{number:02d}": piece for number, piece in enumerate(pieces)}
    return PutOperation(f"{outbox_prefix(hook)}{entry.at_ms:013d}-{entry.token}", [], attributes=attributes)


def entry_of(info: ObjectInfo) -> Entry:
    """An entry, as the store has it.  Raises Internal."""
    text = "".join(info.attributes[key] for key in sorted(info.attributes))
    return decoded(text, Entry, info.path)


def written_ms(path: str) -> int:
    """When an entry was written, by its name."""
    return int(path.rsplit("/", 1)[1].split("-", 1)[0])


def entries_for(wishes: Iterable[Wish], entry: Entry) -> list[PutOperation]:
    """The steps that tell each hook what it wants to know of a commit."""
    steps: list[PutOperation] = []
    for wish in wishes:
        wanted = tuple(each for each in entry.changes if wish.wants(each.action, each.repository))
        if wanted:
            steps.append(entry_step(wish.name, msgspec.structs.replace(entry, changes=wanted)))
    return steps


class Announcer(StoreLayer):
    """An ``ObjectStore`` whose commits put events into the outbox.

    ``wishes`` tells the hooks at this moment, by name; ``written`` is called after a commit with the names
    of those that have something waiting.  ``who`` is named
    where neither the steps nor a request say who it was.
    """

    def __init__(
        self,
        store: ObjectStore,
        wishes: Callable[[], Awaitable[Mapping[str, Wish]]],
        source: Source,
        wall_ms: Callable[[], int],
        new_id: Callable[[], str],
        who: str = "",
        written: Callable[[Iterable[str]], None] = lambda names: None,
    ) -> None:
        super().__init__(store)
        self._wishes = wishes
        self._source = source
        self._wall_ms = wall_ms
        self._new_id = new_id
        self._who = who
        self._written = written

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        """As the store's, with events; the answer is about the given steps only."""
        wishes = await self._wishes()
        changes = changes_of(operations) if wishes else []
        steps = entries_for(wishes.values(), self._entry(changes)) if changes else []
        if not steps:
            return await self._store.commit(operations)
        try:
            results = await self._store.commit([*operations, *steps])
        finally:
            # Also when the outcome is unknown: looking for nothing does no harm.
            self._written(step.path.split("/")[1] for step in steps)
        return results[: len(operations)]

    def _entry(self, changes: Sequence[Change]) -> Entry:
        origin = current_origin()
        who = origin.user or self._who
        named = (each if each.who else msgspec.structs.replace(each, who=who) for each in changes)
        return Entry(self._new_id(), self._wall_ms(), tuple(named), origin, self._source)
