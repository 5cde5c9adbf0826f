"""Why is this still here?  What keeps the bytes of a digest, for people."""

from __future__ import annotations

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.bookkeeping import (
    GARBAGE_PREFIX,
    LEAVING,
    LOOSE_PREFIX,
    PENDING_PREFIX,
    RETIRED_PREFIX,
    SINCE,
    UNTAGGED_PREFIX,
    Kind,
    garbage_path,
    link_path,
    loose_path,
    owners_prefix,
    tagged_prefix,
    trash_path,
    untagged_path,
    uses_prefix,
)
from fabric.driver.registry.history import History
from fabric.driver.registry.names import (
    UPLOADS_PREFIX,
    Digest,
    blob_path,
    manifest_link_path,
    parse_digest,
    referrers_prefix,
    tag_path,
)
from fabric.driver.registry.references import exists
from fabric.errors import NotFound
from fabric.settings import LIST_LIMIT_MAX
from fabric.wire.messages import ObjectInfo

SHOWN_MAX = 20
"""Manifests and tags told of one link."""

WAITING = {
    "uploads": UPLOADS_PREFIX,
    "blobs without a manifest": LOOSE_PREFIX,
    "manifests that may be untagged": UNTAGGED_PREFIX,
    "pushes of large manifests": PENDING_PREFIX,
    "deletions and changes of tags": RETIRED_PREFIX,
    "bytes without a link, perhaps": GARBAGE_PREFIX,
}
"""What passes look at, and where its marks are."""


class Keeper(msgspec.Struct):
    """One link to the bytes."""

    repository: str
    kind: str
    """``blob`` or ``manifest``."""
    state: str
    """``linked``, ``in doubt`` (clients are told to upload it again), ``in the trash`` or ``changing``."""
    since_ms: int
    """Of a state other than ``linked``: wall clock in milliseconds; else 0."""
    who: str
    """Who deleted it."""
    used_by: list[str]
    """Digests of manifests that reference it; some of them, if there are many."""
    tags: list[str]
    """Tags that name it, if it is a manifest; some of them."""
    referrers: list[str]
    """Manifests that are about it; some of them."""
    marked: bool
    """A pass will look at it."""


class Explanation(msgspec.Struct):
    """What keeps the bytes of a digest."""

    digest: str
    size: int
    """In bytes; -1: there are none."""
    keepers: list[Keeper]
    marked: bool
    """A pass will look at the bytes."""


async def explain(store: ObjectStore, digest: Digest) -> Explanation:
    """Everything that keeps these bytes.  Raises FabricError of the store."""
    found = await _find(store, blob_path(digest))
    keepers = []
    after = ""
    while True:
        page = await store.list(owners_prefix(digest), after=after)
        for info in page.objects:
            kind, name = info.path.removeprefix(owners_prefix(digest)).split("/", 1)
            keepers.append(await _keeper(store, name, "blob" if kind == "blob" else "manifest", digest))
        after = page.next
        if not after:
            break
    return Explanation(
        str(digest),
        found.size if found is not None else -1,
        keepers,
        await exists(store, garbage_path(digest)),
    )


async def _keeper(store: ObjectStore, name: str, kind: Kind, digest: Digest) -> Keeper:
    link = await _find(store, link_path(name, kind, digest))
    trashed = await _find(store, trash_path(name, kind, digest)) if link is None else None
    state, since_ms, who = "changing", 0, ""
    if link is not None:
        since_ms = int(link.attributes.get(LEAVING) or 0)
        state = "in doubt" if since_ms else "linked"
    elif trashed is not None:
        state, since_ms, who = "in the trash", int(trashed.attributes["at"]), trashed.attributes["who"]
    path = loose_path(name, digest) if kind == "blob" else untagged_path(name, digest)
    return Keeper(
        repository=name,
        kind=kind,
        state=state,
        since_ms=since_ms,
        who=who,
        used_by=await _digests(store, uses_prefix(name, digest)),
        tags=await _tags(store, name, digest) if kind == "manifest" else [],
        referrers=await _digests(store, referrers_prefix(name, digest)) if kind == "manifest" else [],
        marked=await exists(store, path),
    )


async def _digests(store: ObjectStore, prefix: str) -> list[str]:
    page = await store.list(prefix, limit=SHOWN_MAX)
    return [info.path.removeprefix(prefix).replace("/", ":", 1) for info in page.objects]


async def _tags(store: ObjectStore, name: str, digest: Digest) -> list[str]:
    """Tags that name it now, and those that can be set back to it."""
    shown = []
    for tag in (await History(store).tags(name, tagged_prefix(name, digest)))[:SHOWN_MAX]:
        current = await _find(store, tag_path(name, tag))
        is_named = current is not None and current.digest == str(digest)
        shown.append(tag if is_named else f"{tag} (before)")
    return shown


async def tags_of_user(store: ObjectStore, name: str, manifest: str) -> str:
    """How a manifest that references something is known: its tags, or where it is."""
    digest = parse_digest(manifest)
    tags = await _tags(store, name, digest)
    if not await exists(store, manifest_link_path(name, digest)):
        return "in the trash"
    return ", ".join(tags) or "no tag"


async def _find(store: ObjectStore, path: str) -> ObjectInfo | None:
    try:
        return await store.stat(path)
    except NotFound:
        return None


async def waiting(store: ObjectStore) -> dict[str, tuple[int, int]]:
    """For each kind of mark: how many there are (a page at most), and since when the oldest shown stands."""
    counts = {}
    for what, prefix in WAITING.items():
        page = await store.list(prefix, limit=LIST_LIMIT_MAX)
        times = [int(info.attributes.get(SINCE, 0)) or info.created_at_ms for info in page.objects]
        counts[what] = (len(times), min(times, default=0))
    return counts
