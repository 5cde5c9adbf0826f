"""Manifests and tags of a repository, kept in the store.

Pushing one is a single commit: its bytes, the repository's link to it, its tags, its entry in the list
of its subject's referrers, the repository's name, and a check that everything it references is still
linked here.  So a manifest is never seen without its layers or with half of its tags, and nothing it
needs can be deleted between the check and the push.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.blobs import MUST_EXIST
from fabric.driver.registry.errors import (
    digest_invalid,
    manifest_blobs_unknown,
    manifest_unknown,
)
from fabric.driver.registry.manifests import Manifest, parse_manifest
from fabric.driver.registry.names import (
    Digest,
    blob_link_path,
    blob_path,
    is_tag,
    manifest_link_path,
    name_path,
    parse_digest,
    referrer_path,
    tag_path,
    tags_prefix,
)
from fabric.errors import Internal, NotFound, Precondition, Unavailable
from fabric.wire.messages import (
    AnyOperation,
    CheckOperation,
    DeleteOperation,
    FragmentRef,
    ObjectInfo,
    PutOperation,
)

TAGS_PER_PUSH_MAX = 30
"""Tags that one push may set."""

_CHECKS_MAX = 200
"""References checked inside the commit, which has room for so many; further ones just before it."""

_DELETES_MAX = 200
"""Tags deleted in one commit."""

_ATTEMPTS_MAX = 8


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest of a repository, without its bytes."""

    digest: Digest
    media_type: str
    size: int

    def attributes(self) -> dict[str, str]:
        """What its link and its tags carry, so that one look-up answers a HEAD."""
        return {"digest": str(self.digest), "mediaType": self.media_type, "size": str(self.size)}


def _from_attributes(info: ObjectInfo) -> StoredManifest:
    attributes = info.attributes
    digest = parse_digest(attributes["digest"])
    return StoredManifest(digest, attributes["mediaType"], int(attributes["size"]))


class ManifestStore:
    """Pushes, finds and deletes manifests."""

    def __init__(self, store: ObjectStore, bytes_max: int) -> None:
        self._store = store
        self._bytes_max = bytes_max

    # --- reading ----------------------------------------------------------------------------------

    async def find(self, name: str, reference: Digest | str) -> StoredManifest:
        """The manifest that a tag or digest names.  Raises RegistryError MANIFEST_UNKNOWN."""
        if isinstance(reference, str) and not is_tag(reference):
            raise manifest_unknown(reference)  # a text that is no tag names nothing
        try:
            info = await self._store.stat(_path_of(name, reference))
        except NotFound as error:
            raise manifest_unknown(reference) from error
        return _from_attributes(info)

    async def read(self, name: str, found: StoredManifest) -> bytes:
        """Its exact bytes.  Raises RegistryError MANIFEST_UNKNOWN when it was deleted meanwhile."""
        try:
            _, data = await self._store.read(blob_path(found.digest), self._bytes_max)
        except NotFound as error:
            await self.find(name, found.digest)
            raise Internal(f"manifest {found.digest} of {name} has no bytes in the catalog") from error
        return data

    # --- pushing ----------------------------------------------------------------------------------

    async def push(
        self, name: str, reference: Digest | str, tags: Sequence[str], data: bytes, content_type: str
    ) -> tuple[StoredManifest, Manifest]:
        """Store a manifest under its digest and ``tags``, of which ``reference`` may be the only one.

        Raises RegistryError: MANIFEST_INVALID, DIGEST_INVALID when the bytes have another digest than
        ``reference``, MANIFEST_BLOB_UNKNOWN with one entry for each thing that is missing.
        """
        manifest = parse_manifest(data, content_type)
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
        if isinstance(reference, Digest) and digest != reference:
            raise digest_invalid(f"the manifest has the digest {digest}", reference)
        stored = StoredManifest(digest, manifest.media_type, len(data))
        links = _Links(name, manifest)
        if len(links.paths) > _CHECKS_MAX:
            await links.look_up(self._store)
        fragments: Sequence[FragmentRef] = ()
        for _ in range(_ATTEMPTS_MAX):
            is_present = await _has(self._store, blob_path(digest))
            if not is_present and not fragments:
                fragments = await self._store.stage(data)
            bytes_step = _bytes_step(stored, None if is_present else fragments)
            steps = [bytes_step, *links.checks(), *_naming_steps(name, stored, manifest, tags)]
            try:
                await self._store.commit(steps)
                return stored, manifest
            except (Precondition, NotFound):
                await links.look_up(self._store)
        raise Unavailable(f"manifest {digest} of {name} is changed by others again and again")

    # --- deleting ---------------------------------------------------------------------------------

    async def delete_tag(self, name: str, tag: str) -> None:
        """Delete the tag, not what it names.  Raises RegistryError MANIFEST_UNKNOWN."""
        if not is_tag(tag):
            raise manifest_unknown(tag)
        try:
            await self._store.commit([DeleteOperation(tag_path(name, tag))])
        except NotFound as error:
            raise manifest_unknown(tag) from error

    async def delete(self, name: str, digest: Digest) -> None:
        """Delete the manifest and all tags that name it.  Raises RegistryError MANIFEST_UNKNOWN.

        Its last commit names the generations that were seen: a push of the same manifest or a change of
        one of its tags makes it fail, and it looks again.
        """
        for _ in range(_ATTEMPTS_MAX):
            try:
                link = await self._store.stat(manifest_link_path(name, digest))
            except NotFound as error:
                raise manifest_unknown(digest) from error
            deletes = [
                DeleteOperation(info.path, if_generation=info.generation)
                for info in await self._tags_of(name, digest)
            ]
            try:
                while len(deletes) > _DELETES_MAX:
                    await self._store.commit(deletes[:_DELETES_MAX])
                    deletes = deletes[_DELETES_MAX:]
                await self._store.commit([*deletes, *_unlinking_steps(name, digest, link)])
                return
            except (Precondition, NotFound):
                continue
        raise Unavailable(f"manifest {digest} of {name} is changed by others again and again")

    async def _tags_of(self, name: str, digest: Digest) -> list[ObjectInfo]:
        found: list[ObjectInfo] = []
        after = ""
        while True:
            page = await self._store.list(tags_prefix(name), after=after)
            found += [info for info in page.objects if info.attributes.get("digest") == str(digest)]
            after = page.next
            if not after:
                return found


class _Links:
    """Where the repository links what a manifest references.

    Layers and configs are blobs, an index's children are manifests, except that some tools list blobs
    in an index: then the look-up finds the other link.
    """

    def __init__(self, name: str, manifest: Manifest) -> None:
        self._name = name
        blobs = {each.digest: blob_link_path(name, each.digest) for each in manifest.blobs}
        children = {each.digest: manifest_link_path(name, each.digest) for each in manifest.children}
        self.paths: dict[Digest, str] = {**blobs, **children} if manifest.required else {}

    def checks(self) -> list[AnyOperation]:
        """Steps that fail a commit when a link is gone."""
        return [CheckOperation(path, MUST_EXIST) for path in [*self.paths.values()][:_CHECKS_MAX]]

    async def look_up(self, store: ObjectStore) -> None:
        """Find each link.  Raises RegistryError MANIFEST_BLOB_UNKNOWN that names all that are missing."""
        missing = []
        for digest in self.paths:
            for path in (self.paths[digest], *self._choices(digest)):
                if await _has(store, path):
                    self.paths[digest] = path
                    break
            else:
                missing.append(str(digest))
        if missing:
            raise manifest_blobs_unknown(missing)

    def _choices(self, digest: Digest) -> Iterable[str]:
        return (blob_link_path(self._name, digest), manifest_link_path(self._name, digest))


async def _has(store: ObjectStore, path: str) -> bool:
    try:
        await store.stat(path)
    except NotFound:
        return False
    return True


def _path_of(name: str, reference: Digest | str) -> str:
    if isinstance(reference, Digest):
        return manifest_link_path(name, reference)
    return tag_path(name, reference)


def _bytes_step(stored: StoredManifest, fragments: Sequence[FragmentRef] | None) -> AnyOperation:
    """Make the bytes an object, or make sure that they still are one."""
    path = blob_path(stored.digest)
    if fragments is None:
        return CheckOperation(path, MUST_EXIST)
    return PutOperation(path, list(fragments), digest=str(stored.digest), if_generation=0, immutable=True)


def _naming_steps(
    name: str, stored: StoredManifest, manifest: Manifest, tags: Sequence[str]
) -> list[AnyOperation]:
    """Everything by which the manifest can be found."""
    digest, attributes = stored.digest, stored.attributes()
    link = dict(attributes)
    steps: list[AnyOperation] = [PutOperation(name_path(name), [])]
    steps += [PutOperation(tag_path(name, tag), [], str(digest), attributes) for tag in dict.fromkeys(tags)]
    if manifest.subject is not None:
        subject = manifest.subject.digest
        link["subject"] = str(subject)
        steps.append(PutOperation(referrer_path(name, subject, digest), [], str(digest), attributes))
    steps.append(PutOperation(manifest_link_path(name, digest), [], str(digest), link))
    return steps


def _unlinking_steps(name: str, digest: Digest, link: ObjectInfo) -> list[AnyOperation]:
    steps: list[AnyOperation] = [DeleteOperation(link.path, if_generation=link.generation)]
    if "subject" in link.attributes:
        subject = parse_digest(link.attributes["subject"])
        steps.append(DeleteOperation(referrer_path(name, subject, digest), missing_ok=True))
    return steps
