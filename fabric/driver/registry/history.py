"""What happened to the tags of a repository: the way back.

Every change of a tag adds an entry, in the commit of the change.  So nobody has to know, or to wait for,
what a tag named before: 50 clients may push one tag at once.  The order of entries is that of their
generations, which the store gives out; the times in their names are for people, and make them sort.

A state of a tag can be restored for a time after it was replaced.  Then garbage collection removes its
entry; the entry of the present state stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.bookkeeping import Stamp, history_prefix, retired_path, tagged_path
from fabric.driver.registry.names import Digest, parse_digest
from fabric.wire.messages import AnyOperation, ObjectInfo, PutOperation

PUSHED = "pushed"
DELETED = "deleted"
RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class TagEvent:
    """One change of a tag."""

    tag: str
    key: str
    generation: int
    what: str
    """``pushed``, ``restored`` or ``deleted``."""
    digest: Digest | None
    """What the tag names since then; of a deletion together with the manifest, what it named before."""
    at_ms: int
    who: str

    @property
    def named(self) -> Digest | None:
        """The digest that the tag names after it; None when there is no tag."""
        return None if self.what == DELETED else self.digest


def event_of(info: ObjectInfo) -> TagEvent:
    """A history entry, as the store has it."""
    tag, key = info.path.split("/_history/tags/", 1)[1].split("/", 1)
    attributes = info.attributes
    digest = parse_digest(info.digest) if info.digest else None
    return TagEvent(
        tag, key, info.generation, attributes["what"], digest, int(attributes["at"]), attributes["who"]
    )


def recording(name: str, tag: str, what: str, digest: Digest | None, stamp: Stamp) -> list[AnyOperation]:
    """Beside a change of a tag: its entry."""
    text = str(digest) if digest is not None else ""
    entry = f"{history_prefix(name, tag)}{stamp.key}"
    steps: list[AnyOperation] = [
        PutOperation(entry, [], text, {"what": what, **stamp.attributes()}),
        PutOperation(
            retired_path(stamp.key, f"tag/{tag}"), [], text, {"kind": "tag", "repository": name, "tag": tag}
        ),
    ]
    if digest is not None:
        steps.append(PutOperation(tagged_path(name, digest, tag, stamp.key), []))
    return steps


EVENT_STEPS = 3
"""Steps of ``recording``, at most."""


class History:
    """Reads what happened."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def of(self, name: str, tag: str) -> list[TagEvent]:
        """All that is kept of a tag, in order; empty for one that never was."""
        events = []
        after = ""
        while True:
            page = await self._store.list(history_prefix(name, tag), after=after)
            events += [event_of(info) for info in page.objects]
            after = page.next
            if not after:
                return sorted(events, key=lambda event: event.generation)

    async def tags(self, name: str, prefix: str) -> list[str]:
        """The folded names right below ``prefix``, one of ours that ends with a slash: tags."""
        found: list[str] = []
        after = ""
        while True:
            page = await self._store.list(prefix, delimiter="/", after=after)
            found += [folded.removeprefix(prefix).removesuffix("/") for folded in page.prefixes]
            after = page.next
            if not after:
                return found
