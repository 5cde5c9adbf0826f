"""Manifests of mirrored repositories: fetched when they are asked for, confirmed when they are old.

``ensure`` only sees to it that what can be served is in the store; the answer is then made from there,
like any other.  So a mirrored manifest is one like all: in histories, in the trash, in the catalog.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from fabric.driver.registry.errors import RegistryError, manifest_unknown
from fabric.driver.registry.manifest_store import ManifestStore
from fabric.driver.registry.manifests import IMAGES, INDEXES
from fabric.driver.registry.mirror.decisions import is_fresh, may_be_served_stale
from fabric.driver.registry.mirror.failures import NotStored, UpstreamFailed, UpstreamWrong
from fabric.driver.registry.mirror.flights import Flights
from fabric.driver.registry.mirror.tags import KnownTag, TagAges
from fabric.driver.registry.mirror.upstream import Reply, Upstream
from fabric.driver.registry.names import Digest, is_tag, parse_digest
from fabric.errors import FabricError

ACCEPT = ", ".join([*sorted(IMAGES), *sorted(INDEXES), "*/*;q=0.5"])

MIRROR = "mirror"
"""Who did it, in histories."""

TOGETHER_MAX = 32
"""Manifests fetched at once; each may take its full size in memory."""

_log = logging.getLogger(__name__)


class MirroredManifests:
    """Sees to it that what clients ask for is here, and as new as it must be."""

    def __init__(
        self, manifests: ManifestStore, tags: TagAges, wall_ms: Callable[[], int], bytes_max: int
    ) -> None:
        self._manifests = manifests
        self._tags = tags
        self._wall_ms = wall_ms
        self._bytes_max = bytes_max
        self._flights: Flights[None] = Flights(TOGETHER_MAX)

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def ensure(self, upstream: Upstream, name: str, reference: Digest | str) -> bool:
        """Have the manifest here if it can be had; True when it may be out of date.

        Raises RegistryError: MANIFEST_UNKNOWN (404) when the upstream says so, DENIED (403), 429, 502 or
        503 when it could not be asked and nothing here may be served instead.
        """
        try:
            if isinstance(reference, Digest):
                await self._ensure_digest(upstream, name, reference)
                return False
            return is_tag(reference) and await self._ensure_tag(upstream, name, reference)
        except UpstreamFailed as error:
            raise error.answer() from error

    async def _ensure_digest(self, upstream: Upstream, name: str, digest: Digest) -> None:
        try:
            await self._manifests.find(name, digest)
        except RegistryError:
            await self._flights.join((name, str(digest)), lambda: self._fetch(upstream, name, digest))

    async def _fetch(self, upstream: Upstream, name: str, digest: Digest) -> None:
        reply = await self._get(upstream, name, str(digest))
        if reply is None:
            raise manifest_unknown(digest)
        await self._push(name, digest, [], reply)

    # --- tags ---------------------------------------------------------------------------------------

    async def _ensure_tag(self, upstream: Upstream, name: str, tag: str) -> bool:
        known = await self._tags.find(name, tag)
        if known is not None and is_fresh(upstream.table, known.checked_ms, self._wall_ms()):
            return False
        try:
            if known is not None and upstream.standing.rests(time.monotonic()):
                raise UpstreamFailed(f"{upstream.table.upstream} did not answer a moment ago")
            await self._flights.join((name, tag), lambda: self._refresh(upstream, name, tag, known))
            return False
        except (UpstreamFailed, FabricError) as error:
            # A store that takes nothing now is no reason to withhold what is in it.
            known = await self._tags.find(name, tag)
            if known is None or not may_be_served_stale(upstream.table, known.checked_ms, self._wall_ms()):
                raise
            _log.info("%s:%s is served as it was %d s ago: %s", name, tag,
                      (self._wall_ms() - known.checked_ms) // 1000, error.message)  # fmt: skip
            return True

    async def _refresh(self, upstream: Upstream, name: str, tag: str, known: KnownTag | None) -> None:
        if known is not None and await self._is_unchanged(upstream, name, tag, known):
            await self._tags.confirm(name, tag)
            return
        reply = await self._get(upstream, name, tag, is_known=known is not None)
        if reply is None:
            if known is not None:
                await self._forget(name, tag)
            raise manifest_unknown(tag)
        if known is not None and _has_digest(reply.body, known.digest):
            await self._tags.confirm(name, tag)
        else:
            await self._push(name, _digest_said(reply) or tag, [tag], reply)

    async def _is_unchanged(self, upstream: Upstream, name: str, tag: str, known: KnownTag) -> bool:
        """Whether the upstream says that the tag is what it is here.  Whatever else it says, GET tells."""
        headers = {"Accept": ACCEPT, "If-None-Match": f'"{known.digest}"'}
        reply = await upstream.ask("HEAD", _there(upstream, name), f"manifests/{tag}", 0, headers)
        said = _digest_said(reply)
        return reply.status == 304 or (reply.status == 200 and str(said) == known.digest)

    async def _forget(self, name: str, tag: str) -> None:
        """The upstream has the tag no more.  It can be restored, as one that a client deleted."""
        try:
            await self._manifests.delete_tag(name, tag, MIRROR)
        except RegistryError as error:
            if error.status != 404:
                # An immutable tag stays what it is, whatever happens upstream.
                raise NotStored(error) from error

    # --- both ---------------------------------------------------------------------------------------

    async def _get(
        self, upstream: Upstream, name: str, reference: str, *, is_known: bool = False
    ) -> Reply | None:
        """The upstream's manifest; None when it has none.

        ``is_known``: it is here, so that only a registry's own word counts for its absence.
        """
        if not is_known and upstream.missing.has(name, reference, time.monotonic()):
            return None
        path = f"manifests/{reference}"
        reply = await upstream.ask("GET", _there(upstream, name), path, self._bytes_max, {"Accept": ACCEPT})
        if reply.status == 404:
            if is_known and not _is_word_of_a_registry(reply.body):
                raise UpstreamWrong(f"{upstream.table.upstream} answered 404, and not as a registry does")
            upstream.missing.note(name, reference, time.monotonic())
            return None
        if reply.status != 200:
            raise UpstreamWrong(f"{upstream.table.upstream} answered {reply.status}")
        return reply

    async def _push(self, name: str, reference: Digest | str, tags: list[str], reply: Reply) -> None:
        """Store what came, if it is what it says it is."""
        content_type = reply.headers.get("Content-Type", "")
        try:
            await self._manifests.push(name, reference, tags, reply.body, content_type, MIRROR, mirrored=True)
        except RegistryError as error:
            if error.status not in (400, 413):
                raise NotStored(error) from error
            message = f"what the upstream sent is not taken: {error.message}"
            _log.warning("%s@%s: %s", name, reference, message)
            raise UpstreamWrong(message) from error


def _there(upstream: Upstream, name: str) -> str:
    there = upstream.mapped.upstream_name(name)
    assert there is not None, "a request is only given to the mirror that is for it"
    return there


def _digest_said(reply: Reply) -> Digest | None:
    """What the upstream calls the manifest; None when it says nothing that can be used."""
    try:
        return parse_digest(reply.headers.get("Docker-Content-Digest", ""))
    except RegistryError:
        return None


def _has_digest(data: bytes, digest: str) -> bool:
    algorithm, _, value = digest.partition(":")
    return hashlib.new(algorithm, data).hexdigest() == value


def _is_word_of_a_registry(body: bytes) -> bool:
    """Whether an error is in the specification's form.  A proxy's or a portal's page is not."""
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    errors = document.get("errors") if isinstance(document, dict) else None
    return isinstance(errors, list) and any(isinstance(one, dict) and "code" in one for one in errors)
