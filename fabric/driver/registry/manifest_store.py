"""Manifests and tags of a repository, kept in the store.

Pushing one is a single commit: its bytes, the repository's link to it, its tags, its entry in the list
of its subject's referrers, the repository's name, and a hold on everything it references, which must
still be linked here.  So a manifest is never seen without its layers or with half of its tags, and
nothing it needs can be collected between the check and the push.  (What does not fit one commit is held
just before it; see ``references``.)

Deleting one moves its link to the trash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.blobs import MUST_EXIST
from fabric.driver.registry.bookkeeping import (
    MIRRORED,
    MUST_NOT_EXIST,
    Stamp,
    Stamper,
    mark,
    owning,
    tagged_prefix,
    trashing,
    untagged_path,
)
from fabric.driver.registry.conditions import Conditions, entity_tag
from fabric.driver.registry.errors import digest_invalid, manifest_unknown, precondition_failed
from fabric.driver.registry.history import DELETED, EVENT_STEPS, PUSHED, RESTORED, History, recording
from fabric.driver.registry.hooks.limits import HOOKS_MAX
from fabric.driver.registry.indexing import is_indexed
from fabric.driver.registry.lookups import Lookups
from fabric.driver.registry.manifests import Manifest, parse_manifest
from fabric.driver.registry.names import (
    Digest,
    blob_path,
    is_tag,
    manifest_link_path,
    name_path,
    parse_digest,
    referrer_path,
    tag_path,
    tags_prefix,
)
from fabric.driver.registry.quota.accounting import STEPS_PER_COMMIT, STEPS_PER_OWNERSHIP
from fabric.driver.registry.references import References, exists
from fabric.errors import Internal, NotFound, Precondition, Unavailable
from fabric.settings import OPERATIONS_MAX
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    CheckOperation,
    DeleteOperation,
    FragmentRef,
    ObjectInfo,
    PutOperation,
)

TAGS_PER_PUSH_MAX = 30
"""Tags that one push may set."""

_STEPS_OF_A_PUSH = 10 + HOOKS_MAX + STEPS_PER_OWNERSHIP + STEPS_PER_COMMIT
"""Steps of the commit that are not about tags or references, at most."""

_DELETES_MAX = (OPERATIONS_MAX - 8 - HOOKS_MAX) // (1 + EVENT_STEPS)
"""Tags deleted in one commit."""

_ATTEMPTS_MAX = 8

ALWAYS = Conditions()

CHECKED_MS = "checked"
"""Attribute of a mirrored tag: when the upstream last said so, wall clock in milliseconds."""

ANONYMOUS = "anonymous"
"""Who did it, when nobody said who it was."""


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

    def __init__(
        self, store: ObjectStore, bytes_max: int, stamper: Stamper, lookups: Lookups | None = None
    ) -> None:
        self._store = store
        self._lookups = lookups if lookups is not None else Lookups(store)
        self._bytes_max = bytes_max
        self._stamper = stamper
        self._history = History(store)

    # --- reading ----------------------------------------------------------------------------------

    async def find(self, name: str, reference: Digest | str) -> StoredManifest:
        """The manifest that a tag or digest names.  Raises RegistryError MANIFEST_UNKNOWN."""
        if isinstance(reference, str) and not is_tag(reference):
            raise manifest_unknown(reference)  # a text that is no tag names nothing
        try:
            info = await self._lookups.stat(_path_of(name, reference))
        except NotFound as error:
            raise manifest_unknown(reference) from error
        return _from_attributes(info)

    async def read(self, name: str, found: StoredManifest) -> bytes:
        """Its exact bytes.  Raises RegistryError MANIFEST_UNKNOWN when it was deleted meanwhile."""
        try:
            return await self._lookups.read(blob_path(found.digest), self._bytes_max)
        except NotFound as error:
            await self.find(name, found.digest)
            raise Internal(f"manifest {found.digest} of {name} has no bytes in the catalog") from error

    # --- pushing ----------------------------------------------------------------------------------

    async def push(
        self,
        name: str,
        reference: Digest | str,
        tags: Sequence[str],
        data: bytes,
        content_type: str,
        who: str = ANONYMOUS,
        conditions: Conditions = ALWAYS,
        *,
        mirrored: bool = False,
    ) -> tuple[StoredManifest, Manifest]:
        """Store a manifest under its digest and ``tags``, of which ``reference`` may be the only one.

        ``conditions`` are about what ``reference`` names before.  ``mirrored``: it comes from an upstream
        just now, and what it references may come later.  Raises RegistryError: MANIFEST_INVALID,
        DIGEST_INVALID when the bytes have another digest than ``reference``, MANIFEST_BLOB_UNKNOWN with
        one entry for each thing that is missing, 412 when the conditions do not hold.
        """
        manifest = parse_manifest(data, content_type)
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
        if isinstance(reference, Digest) and digest != reference:
            raise digest_invalid(f"the manifest has the digest {digest}", reference)
        stored = StoredManifest(digest, manifest.media_type, len(data))
        stamp = self._stamper.stamp(who)
        references = References(self._store, name, digest, manifest, ahead=mirrored)
        naming = _naming_steps(name, stored, manifest, list(dict.fromkeys(tags)), stamp, mirrored=mirrored)
        if mirrored or not manifest.required or not references.fit(len(naming) + _STEPS_OF_A_PUSH):
            await references.look_up()
        fragments: Sequence[FragmentRef] = ()
        for _ in range(_ATTEMPTS_MAX):
            is_present = await exists(self._store, blob_path(digest))
            if not is_present and not fragments:
                fragments = await self._store.stage(data)
            bytes_step = _bytes_step(stored, None if is_present else fragments)
            guards = await self._guards(name, reference, conditions)
            try:
                if references.fit(len(naming) + _STEPS_OF_A_PUSH):
                    holding = references.hold()
                else:
                    holding = [await references.hold_before(data, stamp.at_ms)]
                await self._store.commit([*guards, bytes_step, *holding, *naming])
                return stored, manifest
            except (Precondition, NotFound):
                await references.look_up()
        raise Unavailable(f"manifest {digest} of {name} is changed by others again and again")

    async def tag(self, name: str, digest: Digest, tag: str, who: str) -> None:
        """Have a tag name a manifest that the repository has.  Raises RegistryError MANIFEST_UNKNOWN."""
        found = await self.find(name, digest)
        stamp = self._stamper.stamp(who)
        steps: list[AnyOperation] = [
            AppendOperation(manifest_link_path(name, digest), [], expected_size=0),
            PutOperation(tag_path(name, tag), [], str(digest), found.attributes()),
            *recording(name, tag, RESTORED, digest, stamp),
        ]
        try:
            await self._store.commit(steps)
        except NotFound as error:
            raise manifest_unknown(digest) from error

    # --- deleting ---------------------------------------------------------------------------------

    async def delete_tag(
        self, name: str, tag: str, who: str = ANONYMOUS, conditions: Conditions = ALWAYS
    ) -> None:
        """Delete the tag, not what it names.  Raises RegistryError MANIFEST_UNKNOWN, 412."""
        if not is_tag(tag):
            raise manifest_unknown(tag)
        stamp = self._stamper.stamp(who)
        deleting = [DeleteOperation(tag_path(name, tag)), *recording(name, tag, DELETED, None, stamp)]
        for _ in range(_ATTEMPTS_MAX):
            guards = await self._guards(name, tag, conditions)
            try:
                await self._store.commit([*guards, *deleting])
                return
            except NotFound as error:
                raise manifest_unknown(tag) from error
            except Precondition:
                continue
        raise Unavailable(f"tag {tag} of {name} is changed by others again and again")

    async def delete_tag_at(self, name: str, tag: str, generation: int, who: str) -> None:
        """Delete the tag as it was seen.  Raises NotFound or Precondition when it has changed since."""
        stamp = self._stamper.stamp(who)
        await self._store.commit(
            [DeleteOperation(tag_path(name, tag), generation), *recording(name, tag, DELETED, None, stamp)]
        )

    async def delete(self, name: str, digest: Digest, who: str = ANONYMOUS) -> None:
        """Delete the manifest and all tags that name it.  Raises RegistryError MANIFEST_UNKNOWN.

        Its last commit names the generations that were seen: a push of the same manifest or a change of
        one of its tags makes it fail, and it looks again.
        """
        stamp = self._stamper.stamp(who)
        for _ in range(_ATTEMPTS_MAX):
            try:
                link = await self._store.stat(manifest_link_path(name, digest))
            except NotFound as error:
                raise manifest_unknown(digest) from error
            tags = await self._tags_of(name, digest)
            try:
                while len(tags) > _DELETES_MAX:
                    await self._store.commit(_untagging_steps(name, digest, tags[:_DELETES_MAX], stamp))
                    tags = tags[_DELETES_MAX:]
                untagging = _untagging_steps(name, digest, tags, stamp)
                await self._store.commit([*untagging, *unlinking(name, digest, link, stamp)])
                return
            except (Precondition, NotFound):
                continue
        raise Unavailable(f"manifest {digest} of {name} is changed by others again and again")

    async def _guards(
        self, name: str, reference: Digest | str, conditions: Conditions
    ) -> list[CheckOperation]:
        """A step that fails a commit when what a reference names is not what it names now.

        Raises RegistryError 412 when that does not meet the conditions.
        """
        if not conditions:
            return []
        path = _path_of(name, reference)
        try:
            info = await self._store.stat(path)
        except NotFound:
            info = None
        if not conditions.allows(None if info is None else entity_tag(info.digest)):
            raise precondition_failed()
        return [CheckOperation(path, MUST_NOT_EXIST if info is None else info.generation)]

    async def _tags_of(self, name: str, digest: Digest) -> list[ObjectInfo]:
        """The tags that name a manifest now."""
        if not await is_indexed(self._store):
            return await self._tags_searched(name, digest)
        found = []
        for tag in await self._history.tags(name, tagged_prefix(name, digest)):
            try:
                info = await self._store.stat(tag_path(name, tag))
            except NotFound:
                continue
            if info.digest == str(digest):
                found.append(info)
        return found

    async def _tags_searched(self, name: str, digest: Digest) -> list[ObjectInfo]:
        """The same in a store of an earlier version, where only reading all tags tells."""
        found: list[ObjectInfo] = []
        after = ""
        while True:
            page = await self._store.list(tags_prefix(name), after=after)
            found += [info for info in page.objects if info.attributes.get("digest") == str(digest)]
            after = page.next
            if not after:
                return found


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
    name: str,
    stored: StoredManifest,
    manifest: Manifest,
    tags: Sequence[str],
    stamp: Stamp,
    *,
    mirrored: bool,
) -> list[AnyOperation]:
    """Everything by which the manifest can be found."""
    digest, attributes = stored.digest, stored.attributes()
    link = attributes | ({MIRRORED: "yes"} if mirrored else {})
    checked = {CHECKED_MS: str(stamp.at_ms)} if mirrored else {}
    steps: list[AnyOperation] = [PutOperation(name_path(name), []), *owning(digest, "manifest", name)]
    for tag in tags:
        steps.append(PutOperation(tag_path(name, tag), [], str(digest), attributes | checked))
        steps += recording(name, tag, PUSHED, digest, stamp)
    if not tags:
        steps.append(mark(untagged_path(name, digest), stamp.at_ms))
    if manifest.subject is not None:
        subject = manifest.subject.digest
        link["subject"] = str(subject)
        steps.append(PutOperation(referrer_path(name, subject, digest), [], str(digest), attributes))
    steps.append(PutOperation(manifest_link_path(name, digest), [], str(digest), link))
    return steps


def _untagging_steps(
    name: str, digest: Digest, tags: Sequence[ObjectInfo], stamp: Stamp
) -> list[AnyOperation]:
    """Delete tags that name a manifest, at the generations that were seen."""
    steps: list[AnyOperation] = []
    for info in tags:
        steps.append(DeleteOperation(info.path, if_generation=info.generation))
        steps += recording(name, info.path.removeprefix(tags_prefix(name)), DELETED, digest, stamp)
    return steps


def unlinking(name: str, digest: Digest, link: ObjectInfo, stamp: Stamp) -> list[AnyOperation]:
    """Move a manifest that has no tags to the trash, if its link is still at that generation."""
    steps = trashing(name, "manifest", digest, link, stamp)
    if "subject" in link.attributes:
        subject = parse_digest(link.attributes["subject"])
        steps.append(DeleteOperation(referrer_path(name, subject, digest), missing_ok=True))
    return steps
