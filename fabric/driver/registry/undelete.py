"""The way back: what is in the trash, and how a tag, a manifest or a whole repository is restored.

Restoring a manifest is pushing it once more, from the bytes that are still here: the same checks, the
same commit, the same safety beside garbage collection.  What it references is restored first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.bookkeeping import (
    MIRRORED,
    RETIRED_PREFIX,
    Kind,
    Stamper,
    histories_prefix,
    linking_blob,
    tagged_prefix,
    trash_path,
    trash_prefix,
)
from fabric.driver.registry.errors import manifest_unknown
from fabric.driver.registry.history import DELETED, History, TagEvent
from fabric.driver.registry.manifest_store import ManifestStore
from fabric.driver.registry.manifests import parse_manifest
from fabric.driver.registry.names import (
    Digest,
    blob_link_path,
    blob_path,
    manifest_link_path,
    parse_digest,
    tag_path,
)
from fabric.driver.registry.references import exists
from fabric.errors import NotFound, Precondition
from fabric.wire.messages import DeleteOperation


@dataclass(frozen=True, slots=True)
class Trashed:
    """Something that was deleted and can be restored."""

    repository: str
    kind: str
    """``manifest`` or ``blob``."""
    digest: Digest
    at_ms: int
    """When it was deleted, wall clock in milliseconds."""
    who: str
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Restored:
    """One thing that is back: a tag, or a manifest when ``tag`` is empty."""

    repository: str
    tag: str
    digest: Digest


class Undelete:
    """Lists and restores."""

    def __init__(
        self, store: ObjectStore, manifests: ManifestStore, stamper: Stamper, manifest_bytes_max: int
    ) -> None:
        self._store = store
        self._manifests = manifests
        self._stamper = stamper
        self._bytes_max = manifest_bytes_max
        self._history = History(store)

    # --- looking ----------------------------------------------------------------------------------

    async def trash(self, name: str = "") -> AsyncIterator[Trashed]:
        """What can be restored in a repository or, without a name, in all of them, oldest first."""
        after = ""
        while True:
            page = await self._store.list(RETIRED_PREFIX, after=after)
            for info in page.objects:
                kind, repository = info.attributes["kind"], info.attributes["repository"]
                if kind == "tag" or name not in ("", repository):
                    continue
                found = await self._trashed(
                    repository, "blob" if kind == "blob" else "manifest", info.attributes["digest"]
                )
                if found is not None and info.path.startswith(f"{RETIRED_PREFIX}{found[1]}/"):
                    yield found[0]
            after = page.next
            if not after:
                return

    async def _trashed(self, name: str, kind: Kind, digest_text: str) -> tuple[Trashed, str] | None:
        digest = parse_digest(digest_text)
        try:
            info = await self._store.stat(trash_path(name, kind, digest))
        except NotFound:
            return None
        noted = info.attributes
        return Trashed(name, kind, digest, int(noted["at"]), noted["who"], int(noted["size"])), noted["key"]

    # --- restoring --------------------------------------------------------------------------------

    async def tag(self, name: str, tag: str, at_ms: int | None, who: str) -> Restored:
        """Have a tag name what it named at a time or, without one, before its last change.

        Raises RegistryError MANIFEST_UNKNOWN when there is no such state any more.
        """
        digest = _state_at(await self._history.of(name, tag), at_ms, await self._current(name, tag))
        if digest is None:
            raise manifest_unknown(tag)
        await self._bring_back(name, digest, who)
        await self._manifests.tag(name, digest, tag, who)
        return Restored(name, tag, digest)

    async def manifest(self, name: str, digest: Digest, who: str) -> list[Restored]:
        """Restore a manifest with the tags that were deleted together with it.

        Raises RegistryError MANIFEST_UNKNOWN, or MANIFEST_BLOB_UNKNOWN when something it needs is gone.
        """
        restored = []
        if await self._bring_back(name, digest, who):
            restored.append(Restored(name, "", digest))
        for tag in await self._history.tags(name, tagged_prefix(name, digest)):
            events = await self._history.of(name, tag)
            if events and events[-1].what == DELETED and events[-1].digest == digest:
                await self._manifests.tag(name, digest, tag, who)
                restored.append(Restored(name, tag, digest))
        return restored

    async def repository(self, name: str, at_ms: int | None, who: str) -> list[Restored]:
        """Restore all manifests and all tags that a repository had at a time.

        Without a time: whatever is in the trash, and each tag that was deleted.  What was pushed since
        stays.
        """
        restored = []
        for digest in await self._manifests_in_trash(name, at_ms):
            if await self._bring_back(name, digest, who):
                restored.append(Restored(name, "", digest))
        for tag in await self._history.tags(name, histories_prefix(name)):
            current = await self._current(name, tag)
            if at_ms is None and current is not None:
                continue
            wanted = _state_at(await self._history.of(name, tag), at_ms, current)
            if wanted is not None and wanted != current:
                await self._bring_back(name, wanted, who)
                await self._manifests.tag(name, wanted, tag, who)
                restored.append(Restored(name, tag, wanted))
        return restored

    async def _current(self, name: str, tag: str) -> Digest | None:
        try:
            return parse_digest((await self._store.stat(tag_path(name, tag))).digest)
        except NotFound:
            return None

    async def _manifests_in_trash(self, name: str, at_ms: int | None) -> list[Digest]:
        """Those that were there at that time."""
        found: list[Digest] = []
        after = ""
        while True:
            page = await self._store.list(trash_prefix(name, "manifest"), after=after)
            for info in page.objects:
                if at_ms is None or int(info.attributes["at"]) > at_ms:
                    found.append(parse_digest(info.digest))
            after = page.next
            if not after:
                return found

    async def _bring_back(self, name: str, digest: Digest, who: str) -> bool:
        """Make sure that the repository has the manifest; True when it came from the trash."""
        if await exists(self._store, manifest_link_path(name, digest)):
            return False
        try:
            trashed = await self._store.stat(trash_path(name, "manifest", digest))
            _, data = await self._store.read(blob_path(digest), self._bytes_max)
        except NotFound as error:
            raise manifest_unknown(digest) from error
        media_type = trashed.attributes["mediaType"]
        manifest = parse_manifest(data, media_type)
        for child in manifest.children:
            # A manifest cannot contain its own digest, so this ends.
            if await exists(self._store, trash_path(name, "manifest", child.digest)):
                await self._bring_back(name, child.digest, who)
        for each in manifest.references:
            await self._bring_back_blob(name, each.digest)
        is_mirrored = MIRRORED in trashed.attributes
        await self._manifests.push(name, digest, [], data, media_type, who, mirrored=is_mirrored)
        return True

    async def _bring_back_blob(self, name: str, digest: Digest) -> None:
        if await exists(self._store, blob_link_path(name, digest)):
            return
        try:
            trashed = await self._store.stat(trash_path(name, "blob", digest))
            size, now_ms = int(trashed.attributes["size"]), self._stamper.wall_ms()
            unchanged = DeleteOperation(trashed.path, if_generation=trashed.generation)
            await self._store.commit([unchanged, *linking_blob(name, digest, size, now_ms)])
        except (NotFound, Precondition):
            return  # not in the trash; the push says what is missing


def _state_at(events: list[TagEvent], at_ms: int | None, current: Digest | None) -> Digest | None:
    """What the tag named at that time; without a time, the last thing that is not what it names now."""
    if at_ms is not None:
        until = [event for event in events if event.at_ms <= at_ms]
        return until[-1].named if until else None
    earlier = [event.named for event in events if event.named not in (None, current)]
    return earlier[-1] if earlier else None
