"""HTTP of mirrored repositories.

Reading makes sure that what is asked for is here, and then answers as for any repository.  Nothing is
pushed here: that would be overwritten, or hide what the upstream has.  Deleting is allowed to whom the rules
allow it; what is deleted comes again when it is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from fabric.driver.registry import http_blobs
from fabric.driver.registry.access.requirements import WRITES
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.http_conditions import not_modified
from fabric.driver.registry.mirror.download import head_blob
from fabric.driver.registry.mirror.failures import UpstreamFailed
from fabric.driver.registry.mirror.flights import Flights
from fabric.driver.registry.mirror.lists import referrers_upstream, tags_upstream
from fabric.driver.registry.mirror.manifests import TOGETHER_MAX, MirroredManifests
from fabric.driver.registry.mirror.mirrors import Mirrors
from fabric.driver.registry.mirror.tags import TagAges
from fabric.driver.registry.mirror.transfers import Transfers
from fabric.driver.registry.mirror.upstream import OWN_NAME, VIA, Upstream
from fabric.driver.registry.names import Digest, parse_digest, parse_reference
from fabric.driver.registry.routes import Endpoint, Route
from fabric.driver.registry.service import Service

STALE = '110 - "Response is Stale"'
"""The ``Warning`` of an answer that the upstream could not confirm (RFC 7234, section 5.5.1)."""

Answer = Callable[[Service, web.Request, Route], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class Mirroring:
    """Answers requests to mirrored repositories."""

    def __init__(self, mirrors: Mirrors, service: Service) -> None:
        self.mirrors = mirrors
        self._service = service
        tags = TagAges(service.store, service.lookups, service.wall_ms)
        bytes_max = service.settings.manifest_bytes_max
        self._manifests = MirroredManifests(service.manifests, tags, service.wall_ms, bytes_max)
        self._transfers = Transfers(service)
        self._sizes: Flights[int] = Flights(TOGETHER_MAX)
        self._lists = asyncio.Semaphore(TOGETHER_MAX)

    async def close(self) -> None:
        """End what is under way."""
        await self._manifests.close()
        await self._transfers.close()
        await self._sizes.close()
        await self.mirrors.close()

    async def answer(
        self, upstream: Upstream, request: web.Request, route: Route, local: Answer
    ) -> web.StreamResponse:
        """The answer to a request that was let in; ``local`` answers from what is here."""
        if request.method in WRITES:
            refuse_pushes(upstream, request.method, route.name)
            return await local(self._service, request, route)
        via = ", ".join(request.headers.getall("Via", []))
        if OWN_NAME in via:
            raise RegistryError(508, "UNSUPPORTED", "mirrors of mirrors make a circle here")
        VIA.set(via)
        match route.endpoint:
            case Endpoint.MANIFEST:
                return await self._manifest(upstream, request, route, local)
            case Endpoint.BLOB:
                return await self._blob(upstream, request, route, local)
            case Endpoint.TAGS | Endpoint.REFERRERS:
                return await self._list(upstream, request, route, local)
            case _:
                return await local(self._service, request, route)

    async def _manifest(
        self, upstream: Upstream, request: web.Request, route: Route, local: Answer
    ) -> web.StreamResponse:
        is_stale = await self._manifests.ensure(upstream, route.name, parse_reference(route.reference))
        response = await local(self._service, request, route)
        if is_stale:
            response.headers["Warning"] = STALE
        return response

    async def _list(
        self, upstream: Upstream, request: web.Request, route: Route, local: Answer
    ) -> web.StreamResponse:
        ask = tags_upstream if route.endpoint is Endpoint.TAGS else referrers_upstream
        try:
            async with self._lists:
                return await ask(upstream, request, route)
        except UpstreamFailed as error:
            _log.info("%s: what is here is listed: %s", request.path, error.message)
            response = await local(self._service, request, route)
            response.headers["Warning"] = STALE
            return response

    # --- blobs --------------------------------------------------------------------------------------

    async def _blob(
        self, upstream: Upstream, request: web.Request, route: Route, local: Answer
    ) -> web.StreamResponse:
        service, digest = self._service, parse_digest(route.reference)
        there = upstream.mapped.upstream_name(route.name)
        assert there is not None, "a request is only given to the mirror that is for it"
        if request.method == "HEAD":
            return await self._head(upstream, request, route.name, there, digest)
        try:
            await service.blobs.size(route.name, digest)
        except RegistryError:
            pass
        else:
            return await local(service, request, route)
        with self._transfers.reading(upstream, route.name, there, digest) as transfer:
            size = await transfer.known_size()
            return await http_blobs.answer(service, request, digest, size, transfer.open)

    async def _head(
        self, upstream: Upstream, request: web.Request, name: str, there: str, digest: Digest
    ) -> web.StreamResponse:
        """A HEAD of what is not here costs a HEAD upstream, not a transfer.

        Nobody uploads here, so that a blob which garbage collection has its eye on is still offered.
        """
        try:
            size = await self._service.blobs.size(name, digest)
        except RegistryError:
            try:
                size = await self._sizes.join((there, digest), lambda: head_blob(upstream, there, digest))
            except UpstreamFailed as error:
                raise error.answer() from error
        headers = http_blobs.headers_of(digest)
        unchanged = not_modified(request, headers)
        return unchanged or web.Response(headers={**headers, "Content-Length": str(size)})


def refuse_pushes(upstream: Upstream, method: str, name: str) -> None:
    """Raises RegistryError DENIED for a request that would write into a mirrored repository."""
    if method != "DELETE":
        message = f"{name} mirrors {upstream.table.upstream}; nothing is pushed here"
        raise RegistryError(403, "DENIED", message, {"name": name})
