"""Blobs of a repository: bytes shared by all repositories, each of which owns them by a link.

A blob that exists but is not linked in the repository is unknown there; otherwise a digest alone would
give anybody's layers away.
"""

from __future__ import annotations

from fabric.driver.object_store import ObjectReader, ObjectStore
from fabric.driver.registry.bookkeeping import LEAVING, Stamper, linking_blob, owner_path, trashing
from fabric.driver.registry.errors import blob_unknown
from fabric.driver.registry.lookups import Lookups
from fabric.driver.registry.names import Digest, blob_link_path, blob_path
from fabric.errors import Internal, NotFound, Precondition, Unavailable
from fabric.settings import KIB
from fabric.wire.messages import CheckOperation

MUST_EXIST = -1
"""The generation that a ``CheckOperation`` names to say so."""

SMALL_BYTES_MAX = 64 * KIB
"""Blobs up to this size, such as configurations, are kept in memory as manifests are."""

OWNERS_MAX = 100
"""Repositories that are looked at for a blob which a client wants mounted from anywhere."""

_ATTEMPTS_MAX = 8


class Blobs:
    """Reads, mounts and unlinks blobs; ``uploads`` makes them."""

    def __init__(self, store: ObjectStore, stamper: Stamper, lookups: Lookups | None = None) -> None:
        self._store = store
        self._lookups = lookups if lookups is not None else Lookups(store)
        self._stamper = stamper

    async def size(self, name: str, digest: Digest) -> int:
        """Size in bytes of a blob of the repository.  Raises RegistryError BLOB_UNKNOWN."""
        try:
            link = await self._lookups.stat(blob_link_path(name, digest))
        except NotFound as error:
            raise blob_unknown(digest) from error
        return int(link.attributes["size"])

    async def offer(self, name: str, digest: Digest) -> int:
        """Size in bytes of a blob that a client need not upload.  Raises RegistryError BLOB_UNKNOWN.

        Also for one that no manifest has needed for long: whoever would rely on it must upload it again,
        or garbage collection might be faster than the manifest.
        """
        try:
            link = await self._lookups.stat(blob_link_path(name, digest))
        except NotFound as error:
            raise blob_unknown(digest) from error
        if link.attributes.get(LEAVING):
            raise blob_unknown(digest)
        return int(link.attributes["size"])

    async def open(self, name: str, digest: Digest, start: int, length: int) -> ObjectReader:
        """Read ``length`` bytes from ``start`` of a blob whose ``size`` was asked for before.

        Raises RegistryError BLOB_UNKNOWN when it was deleted meanwhile, Internal when it is linked and
        has no bytes: that is a loss, and must not look like an absence.
        """
        try:
            return await self._store.open(blob_path(digest), start, length)
        except NotFound as error:
            await self.size(name, digest)
            raise Internal(f"{digest} is linked in {name} and its bytes are not in the catalog") from error

    async def read(self, name: str, digest: Digest, size: int) -> bytes:
        """A blob of ``SMALL_BYTES_MAX`` at most, whole.  Raises as ``open`` does."""
        try:
            return await self._lookups.read(blob_path(digest), size)
        except NotFound as error:
            await self.size(name, digest)
            raise Internal(f"{digest} is linked in {name} and its bytes are not in the catalog") from error

    async def mount(self, name: str, digest: Digest, source: str) -> bool:
        """Link a blob of repository ``source`` here too; False when ``source`` does not have it."""
        try:
            link = await self._store.stat(blob_link_path(source, digest))
            await self._store.commit(
                [
                    CheckOperation(blob_link_path(source, digest), MUST_EXIST),
                    CheckOperation(blob_path(digest), MUST_EXIST),
                    *linking_blob(name, digest, int(link.attributes["size"]), self._stamper.wall_ms()),
                ]
            )
        except (NotFound, Precondition):
            return False
        return True

    async def owners(self, digest: Digest) -> list[str]:
        """Some repositories, by name, that link a blob or have it in their trash; at most a page."""
        prefix = owner_path(digest, "blob", "")
        listing = await self._store.list(prefix, limit=OWNERS_MAX)
        return [info.path.removeprefix(prefix) for info in listing.objects]

    async def delete(self, name: str, digest: Digest, who: str) -> None:
        """Move the link to the trash; the bytes stay while any link or trash has them.

        Raises RegistryError BLOB_UNKNOWN.
        """
        for _ in range(_ATTEMPTS_MAX):
            try:
                link = await self._store.stat(blob_link_path(name, digest))
                await self._store.commit(trashing(name, "blob", digest, link, self._stamper.stamp(who)))
                return
            except NotFound as error:
                raise blob_unknown(digest) from error
            except Precondition:
                continue
        raise Unavailable(f"{digest} of {name} is changed by others again and again")
