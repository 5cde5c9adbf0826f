"""Which manifests of a repository are about another one (distribution specification, "Listing Referrers")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.manifest_store import ManifestStore
from fabric.driver.registry.manifests import OCI_INDEX, parse_manifest
from fabric.driver.registry.names import Digest, parse_digest, referrers_prefix

PAGE_COUNT_MAX = 50
PAGE_BYTES_MAX = 4 * 1024 * 1024
"""Manifests read for one page: it is cut short when they are large."""


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """An image index of referrers; ``last``: the next page is asked for with it, empty at the end."""

    index: dict[str, Any]
    last: str


class Referrers:
    """Lists the manifests that have a digest as their subject."""

    def __init__(self, store: ObjectStore, manifests: ManifestStore) -> None:
        self._store = store
        self._manifests = manifests

    async def page(self, name: str, subject: Digest, artifact_type: str, last: str) -> ReferrersPage:
        """One page after the referrer ``last``; only those of ``artifact_type`` when it is not empty.

        Raises RegistryError DIGEST_INVALID when ``last`` is not a digest.
        """
        prefix = referrers_prefix(name, subject)
        after = f"{prefix}{str(parse_digest(last)).replace(':', '/')}" if last else ""
        listing = await self._store.list(prefix, after=after, limit=PAGE_COUNT_MAX)
        descriptors: list[dict[str, Any]] = []
        bytes_read, cursor, is_cut = 0, "", False
        for info in listing.objects:
            if bytes_read >= PAGE_BYTES_MAX:
                is_cut = True
                break
            digest = parse_digest(info.attributes["digest"])
            cursor = str(digest)
            bytes_read += int(info.attributes["size"])
            descriptor = await self._descriptor(name, digest)
            if descriptor is not None and artifact_type in ("", descriptor.get("artifactType")):
                descriptors.append(descriptor)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
        return ReferrersPage(index, cursor if is_cut or listing.next else "")

    async def _descriptor(self, name: str, digest: Digest) -> dict[str, Any] | None:
        """How the index names a referrer; None when it was deleted meanwhile."""
        try:
            found = await self._manifests.find(name, digest)
            data = await self._manifests.read(name, found)
        except RegistryError:
            return None
        manifest = parse_manifest(data, found.media_type)
        descriptor: dict[str, Any] = {
            "mediaType": found.media_type,
            "size": found.size,
            "digest": str(digest),
        }
        if manifest.artifact_type:
            descriptor["artifactType"] = manifest.artifact_type
        if manifest.annotations:
            descriptor["annotations"] = manifest.annotations
        return descriptor
