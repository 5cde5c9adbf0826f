"""HTTP of blobs: GET, HEAD and DELETE of ``/v2/<name>/blobs/<digest>``.

A download streams from the store's reader, piece by piece, and waits for the client before it takes
the next.  When the store fails in the middle the connection is cut: a client must never take a part
for the whole.
"""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from fabric.driver.object_store import Buffer, ObjectReader
from fabric.driver.registry.http_actor import actor
from fabric.driver.registry.names import Digest, parse_digest
from fabric.driver.registry.ranges import ByteRange, download_range
from fabric.driver.registry.routes import Route
from fabric.driver.registry.service import Service
from fabric.errors import FabricError

WRITE_BYTES = 256 * 1024
"""Written at once, and within the stall timeout: what decides how slow a client may be."""

_log = logging.getLogger(__name__)


async def get(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """GET: the bytes, or one range of them."""
    digest = parse_digest(route.reference)
    size = await service.blobs.size(route.name, digest)
    headers = _headers(digest)
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    part = _wanted(request, headers["ETag"], size)
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    if part is None:
        part = ByteRange(0, size)
    else:
        response.headers["Content-Range"] = f"bytes {part.start}-{part.last}/{size}"
    response.content_length = part.length
    with service.outgoing.stream():
        reader = await service.blobs.open(route.name, digest, part.start, part.length)
        try:
            await response.prepare(request)
            await _send(request, response, reader, part.length, service.settings.client_stall_timeout_s)
        finally:
            await reader.close()
    return response


async def head(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """HEAD: whether it is here, and how large it is."""
    digest = parse_digest(route.reference)
    size = await service.blobs.offer(route.name, digest)
    return web.Response(status=200, headers={**_headers(digest), "Content-Length": str(size)})


async def delete(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """DELETE: the repository does not have it any more."""
    await service.blobs.delete(route.name, parse_digest(route.reference), actor(request))
    return web.Response(status=202)


def _headers(digest: Digest) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
    }


def _wanted(request: web.Request, etag: str, size: int) -> ByteRange | None:
    """The range to send; None for everything."""
    header = request.headers.get("Range")
    if header is None or request.headers.get("If-Range", etag) != etag:
        return None
    return download_range(header, size)


async def _send(
    request: web.Request, response: web.StreamResponse, reader: ObjectReader, length: int, stall_s: float
) -> None:
    """Write all ``length`` bytes, or cut the connection."""
    left = length
    try:
        async for piece in reader:
            left -= len(piece)
            await _write(response, piece, stall_s)
    except FabricError as error:
        _log.error("download of %s cut %d bytes before its end: %s", request.path, left, error)
    except TimeoutError:
        _log.warning("download of %s cut: the client took nothing for %g s", request.path, stall_s)
    if left and request.transport is not None:
        request.transport.abort()


async def _write(response: web.StreamResponse, piece: Buffer, stall_s: float) -> None:
    view = memoryview(piece)
    for start in range(0, len(view), WRITE_BYTES):
        async with asyncio.timeout(stall_s):
            await response.write(view[start : start + WRITE_BYTES])
