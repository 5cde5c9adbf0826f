"""What a manifest references, and how its push takes hold of it.

Layers and configs are blobs, an index's children are manifests, except that some tools list blobs in an
index: then the look-up finds the other link.  A commit has room for some eighty references.  A larger
manifest takes hold of its references first, in several commits, under a mark with its bytes
(``pending/``): when the push dies in between, garbage collection knows what to let go.

A mirror stores a manifest before what it references.  Such a push writes its uses ahead: of what is
absent it demands that it is absent still, so that whoever links it later finds the use, and whoever
linked it meanwhile makes the push look again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.bookkeeping import (
    SINCE,
    loose_path,
    mark,
    pending_path,
    retiring,
    trash_path,
    untagged_path,
    use_path,
    using,
    using_ahead,
)
from fabric.driver.registry.errors import manifest_blobs_unknown
from fabric.driver.registry.manifests import Manifest
from fabric.driver.registry.names import Digest, blob_link_path, manifest_link_path
from fabric.errors import NotFound
from fabric.settings import OPERATIONS_MAX
from fabric.wire.messages import AnyOperation, CheckOperation, DeleteOperation

STEPS_PER_REFERENCE = 3
BATCH_MAX = 80
"""References in one commit of their own."""


class References:
    """The links that one manifest needs, for one push of it."""

    def __init__(
        self, store: ObjectStore, name: str, digest: Digest, manifest: Manifest, *, ahead: bool = False
    ) -> None:
        """``ahead``: what is absent may come later, and is used from now on."""
        self._ahead = ahead
        self._store = store
        self._name = name
        self._digest = digest
        self._required = manifest.required
        self._media_type = manifest.media_type
        blobs = {each.digest: blob_link_path(name, each.digest) for each in manifest.blobs}
        children = {each.digest: manifest_link_path(name, each.digest) for each in manifest.children}
        self._named = {**blobs, **children}
        self.links: dict[Digest, str] = dict(self._named) if manifest.required else {}
        self._absent: dict[Digest, str] = {}
        """Where the links will be of what is used ahead."""

    def fit(self, other_steps: int) -> bool:
        """Whether one commit has room for all, beside so many other steps."""
        return len(self._held) * STEPS_PER_REFERENCE + other_steps <= OPERATIONS_MAX

    @property
    def _held(self) -> list[Digest]:
        return [*self.links, *self._absent]

    def hold(self) -> list[AnyOperation]:
        """Steps that hold every reference; they fail when a link is gone, or is no longer absent."""
        return self._hold(self._held)

    def _hold(self, digests: Iterable[Digest]) -> list[AnyOperation]:
        steps: list[AnyOperation] = []
        for digest in digests:
            if digest in self.links:
                steps += using(self._name, digest, self.links[digest], self._digest)
            else:
                steps += using_ahead(self._name, digest, self._absent[digest], self._digest)
        return steps

    async def look_up(self) -> None:
        """Find each link.  Raises RegistryError MANIFEST_BLOB_UNKNOWN that names all that are missing.

        What an artifact of an unknown type names is held where it is here, and may be missing.
        """
        missing = []
        self._absent = {}
        for digest, usual in self._named.items():
            for path in dict.fromkeys((usual, *self._choices(digest))):
                if await exists(self._store, path):
                    self.links[digest] = path
                    break
            else:
                self.links.pop(digest, None)
                if self._ahead:
                    self._absent[digest] = usual
                else:
                    missing.append(str(digest))
        if missing and self._required:
            raise manifest_blobs_unknown(missing)

    def _choices(self, digest: Digest) -> Iterable[str]:
        return (blob_link_path(self._name, digest), manifest_link_path(self._name, digest))

    async def hold_before(self, data: bytes, now_ms: int) -> DeleteOperation:
        """Hold all references in commits of their own; returns the step that the last commit must have.

        It fails when garbage collection, or a rival push of the same manifest, came between.
        Raises Precondition or NotFound when a link is gone.
        """
        path = pending_path(self._name, self._digest)
        info = await self._store.put(
            path, data, attributes={SINCE: str(now_ms), "mediaType": self._media_type}
        )
        digests = self._held
        for start in range(0, len(digests), BATCH_MAX):
            steps = self._hold(digests[start : start + BATCH_MAX])
            await self._store.commit([CheckOperation(path, info.generation), *steps])
        return DeleteOperation(path, if_generation=info.generation)


async def letting_go(
    store: ObjectStore, name: str, manifest: Manifest, digest: Digest, now_ms: int
) -> AsyncIterator[list[AnyOperation]]:
    """The steps that end every use by a manifest, in portions that leave room in a commit.

    What loses a use gets the mark of what it may be from now on.
    """
    children = {each.digest for each in manifest.children}
    others = list(dict.fromkeys(each.digest for each in manifest.references))
    for start in range(0, len(others), BATCH_MAX):
        steps: list[AnyOperation] = []
        for other in others[start : start + BATCH_MAX]:
            steps.append(DeleteOperation(use_path(name, other, digest), missing_ok=True))
            steps.append(mark(loose_path(name, other), now_ms))
            if other in children:
                steps += await _doubting(store, name, other, now_ms)
        yield steps


async def _doubting(store: ObjectStore, name: str, digest: Digest, now_ms: int) -> list[AnyOperation]:
    """For a manifest that an index does not need any more: its mark, or its place in the trash's order."""
    if await exists(store, manifest_link_path(name, digest)):
        return [mark(untagged_path(name, digest), now_ms)]
    try:
        trashed = await store.stat(trash_path(name, "manifest", digest))
    except NotFound:
        return []
    return [retiring(name, "manifest", digest, trashed.attributes["key"])]


async def exists(store: ObjectStore, path: str) -> bool:
    """Whether there is an object at ``path``."""
    try:
        await store.stat(path)
    except NotFound:
        return False
    return True
