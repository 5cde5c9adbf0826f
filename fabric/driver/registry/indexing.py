"""The books of a store that an earlier version wrote: made once, while everything goes on.

Pushes write their entries from the first moment; what was there before has none.  So before garbage
collection removes anything, one walk over all links and one over all bytes add what is missing.  Each
step holds only if its link is still as it was seen, and is looked at again otherwise.  The walk keeps its
place in ``meta/registry-index``, goes on there after a crash, and may run in several processes at once.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.bookkeeping import (
    Stamp,
    Stamper,
    garbage_path,
    history_prefix,
    loose_path,
    mark,
    owner_path,
    owners_prefix,
    untagged_path,
    use_path,
)
from fabric.driver.registry.collection import Pause
from fabric.driver.registry.history import PUSHED, recording
from fabric.driver.registry.manifests import parse_manifest
from fabric.driver.registry.names import Digest, blob_path, parse_digest
from fabric.driver.registry.references import exists
from fabric.errors import Internal, NotFound, Precondition, Unavailable
from fabric.settings import OPERATIONS_MAX
from fabric.wire.messages import AnyOperation, CheckOperation, ObjectInfo, PutOperation

INDEX_PATH = "meta/registry-index"
VERSION = "1"
COMPLETE = "complete"
LINKS = "repositories/"
BYTES = "blobs/"

_PAGE = 200
_ATTEMPTS_MAX = 16
_LINK = re.compile(r"repositories/(?P<name>[^_].*?)/_(?P<kind>blobs|manifests|tags)/(?P<rest>.+)")


async def is_indexed(store: ObjectStore) -> bool:
    """Whether the books tell everything."""
    try:
        info = await store.stat(INDEX_PATH)
    except NotFound:
        return False
    return info.attributes["version"] == VERSION and info.attributes["place"] == COMPLETE


class Indexing:
    """Adds what is missing."""

    def __init__(self, store: ObjectStore, stamper: Stamper, manifest_bytes_max: int, pause: Pause) -> None:
        self._store = store
        self._stamper = stamper
        self._bytes_max = manifest_bytes_max
        self._pause = pause

    async def run(self) -> None:
        """Go on where it was left, to the end.  Raises FabricError of the store; run it again then."""
        place = await self._place()
        while place != COMPLETE:
            prefix = BYTES if place.startswith(BYTES) else LINKS
            page = await self._store.list(prefix, after=place, limit=_PAGE)
            for info in page.objects:
                await (self._index_link(info) if prefix == LINKS else self._index_bytes(info))
            await self._pause()
            place = page.next or (BYTES if prefix == LINKS else COMPLETE)
            # Of two processes the slower one moves the place back; that costs time and harms nothing.
            await self._store.put(INDEX_PATH, b"", attributes={"version": VERSION, "place": place})

    async def _place(self) -> str:
        try:
            info = await self._store.stat(INDEX_PATH)
        except NotFound:
            return LINKS
        return info.attributes["place"] if info.attributes["version"] == VERSION else LINKS

    async def _index_bytes(self, info: ObjectInfo) -> None:
        """Bytes that nobody owns are garbage, perhaps."""
        digest = parse_digest(f"{info.path.split('/')[1]}:{info.path.split('/')[3]}")
        owners = await self._store.list(owners_prefix(digest), limit=1)
        if not owners.objects:
            await self._store.commit([mark(garbage_path(digest), self._stamper.wall_ms())])

    async def _index_link(self, info: ObjectInfo) -> None:
        found = _LINK.fullmatch(info.path)
        if found is None:
            return  # an entry of the books, or a referrer
        for _ in range(_ATTEMPTS_MAX):
            try:
                async for steps in self._entries(found["name"], found["kind"], found["rest"], info):
                    await self._store.commit([CheckOperation(info.path, info.generation), *steps])
                return
            except Precondition:
                try:
                    info = await self._store.stat(info.path)
                except NotFound:
                    return  # it was deleted, by somebody who wrote that down
        raise Unavailable(f"{info.path} is changed by others again and again")

    async def _entries(
        self, name: str, kind: str, rest: str, info: ObjectInfo
    ) -> AsyncIterator[Sequence[AnyOperation]]:
        """What is to be written for one link, in portions that fit a commit."""
        now_ms = self._stamper.wall_ms()
        if kind == "tags":
            entries = await self._store.list(history_prefix(name, rest), limit=1)
            if not entries.objects:
                token = self._stamper.stamp("").token
                stamp = Stamp(info.created_at_ms, "unknown", token)
                yield recording(name, rest, PUSHED, parse_digest(info.attributes["digest"]), stamp)
            return
        digest = parse_digest(rest.replace("/", ":", 1))
        if await exists(self._store, owner_path(digest, "blob" if kind == "blobs" else "manifest", name)):
            return  # the last entry that is written; whoever made this link wrote all of them
        if kind == "blobs":
            yield [
                PutOperation(owner_path(digest, "blob", name), []),
                mark(loose_path(name, digest), now_ms),
            ]
            return
        uses = [use_path(name, other, digest) for other in await self._references(info, digest)]
        room = OPERATIONS_MAX - 1
        for start in range(0, len(uses), room):
            yield [PutOperation(path, []) for path in uses[start : start + room]]
        yield [
            PutOperation(owner_path(digest, "manifest", name), []),
            mark(untagged_path(name, digest), now_ms),
        ]

    async def _references(self, link: ObjectInfo, digest: Digest) -> list[Digest]:
        try:
            _, data = await self._store.read(blob_path(digest), self._bytes_max)
        except NotFound as error:
            await self._still_there(link)
            raise Internal(f"{link.path} has no bytes in the catalog") from error
        manifest = parse_manifest(data, link.attributes["mediaType"])
        return list(dict.fromkeys(each.digest for each in manifest.references))

    async def _still_there(self, link: ObjectInfo) -> None:
        """Raises Precondition when the link has gone or changed: then there is no loss."""
        await self._store.commit([CheckOperation(link.path, link.generation)])
