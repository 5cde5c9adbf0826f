"""When a tag was last confirmed: an attribute of the tag itself, so that all processes know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.manifest_store import CHECKED_MS
from fabric.driver.registry.names import tag_path
from fabric.errors import NotFound, Precondition
from fabric.wire.messages import AppendOperation, ObjectInfo


class Stats(Protocol):
    """Something that looks names up."""

    async def stat(self, path: str) -> ObjectInfo:
        """What is at ``path``.  Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class KnownTag:
    """A tag that is here."""

    digest: str
    checked_ms: int
    """When the upstream last confirmed it, wall clock in milliseconds; 0: it never did."""


class TagAges:
    """Reads and notes it."""

    def __init__(self, store: ObjectStore, lookups: Stats, wall_ms: Callable[[], int]) -> None:
        self._store = store
        self._lookups = lookups
        self._wall_ms = wall_ms

    async def find(self, name: str, tag: str) -> KnownTag | None:
        """The tag as it is here."""
        try:
            info = await self._lookups.stat(tag_path(name, tag))
        except NotFound:
            return None
        return KnownTag(info.digest, int(info.attributes.get(CHECKED_MS, "0")))

    async def confirm(self, name: str, tag: str) -> None:
        """The upstream has just said that it is as it is here.  Harmless when it is gone meanwhile."""
        noted = {CHECKED_MS: str(self._wall_ms())}
        try:
            await self._store.commit([AppendOperation(tag_path(name, tag), [], 0, noted)])
        except (NotFound, Precondition):
            return
