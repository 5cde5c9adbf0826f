"""HTTP of blobs: GET, HEAD and DELETE of ``/v2/<name>/blobs/<digest>``.

A download streams from the store's reader, piece by piece, and waits for the client before it takes
the next.  When the store fails in the middle the connection is cut: a client must never take a part
for the whole.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from aiohttp import web

from fabric.driver.object_store import Buffer, Deferred, Defers, ObjectReader
from fabric.driver.registry.blobs import SMALL_BYTES_MAX
from fabric.driver.registry.byteranges import Layout, lay_out
from fabric.driver.registry.conditions import entity_tag
from fabric.driver.registry.http_actor import actor
from fabric.driver.registry.http_conditions import not_modified
from fabric.driver.registry.http_stream import send
from fabric.driver.registry.names import Digest, parse_digest
from fabric.driver.registry.ranges import ByteRange, download_ranges
from fabric.driver.registry.routes import Route
from fabric.driver.registry.service import Service

MEDIA_TYPE = "application/octet-stream"
"""Of every blob: what it is stands in the manifest that names it."""


class Reader(Protocol):
    """Reads a part of a blob, such as an ``ObjectReader``."""

    def __aiter__(self) -> AsyncIterator[Buffer]:
        """The bytes in order."""
        ...

    async def close(self) -> None:
        """Stop reading; harmless when called twice."""
        ...


Opened = Callable[[int, int], Awaitable[Reader]]
"""A reader of so many bytes from a position on: ``opened(start, length)``."""


async def get(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """GET: the bytes, or one range of them, or several as ``multipart/byteranges``."""
    digest = parse_digest(route.reference)
    size = await service.blobs.size(route.name, digest)
    if 0 < size <= SMALL_BYTES_MAX and "Range" not in request.headers:
        headers = headers_of(digest)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        return web.Response(body=await service.blobs.read(route.name, digest, size), headers=headers)

    async def opened(start: int, length: int) -> ObjectReader:
        return await service.blobs.open(route.name, digest, start, length)

    return await answer(service, request, digest, size, opened)


async def answer(
    service: Service, request: web.Request, digest: Digest, size: int, opened: Opened
) -> web.StreamResponse:
    """What a GET asks for of ``size`` bytes, which ``opened`` reads from any place on."""
    headers = headers_of(digest)
    unchanged = not_modified(request, headers)
    if unchanged is not None:
        return unchanged
    layout = lay_out(_wanted(request, headers["ETag"], size), size, MEDIA_TYPE, secrets.token_hex(16))
    response = web.StreamResponse(status=layout.status, headers={**headers, **layout.headers})
    response.content_length = layout.length
    with service.outgoing.stream():
        first = layout.parts[0].range
        reader = await opened(first.start, first.length)
        try:
            await response.prepare(request)
            async with aclosing(_content(layout, reader, opened)) as content:
                stall_s = service.settings.client_stall_timeout_s
                await send(request, response, content, layout.length, stall_s, service.writing)
        finally:
            await reader.close()
    return response


async def head(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """HEAD: whether it is here, and how large it is.  A Range is for GET only."""
    digest = parse_digest(route.reference)
    size = await service.blobs.offer(route.name, digest)
    headers = headers_of(digest)
    unchanged = not_modified(request, headers)
    if unchanged is not None:
        return unchanged
    return web.Response(status=200, headers={**headers, "Content-Length": str(size)})


async def delete(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """DELETE: the repository does not have it any more."""
    await service.blobs.delete(route.name, parse_digest(route.reference), actor(request))
    return web.Response(status=202)


def headers_of(digest: Digest) -> dict[str, str]:
    """What every answer about the blob has."""
    return {
        "Content-Type": MEDIA_TYPE,
        "Docker-Content-Digest": str(digest),
        "ETag": entity_tag(digest),
        "Accept-Ranges": "bytes",
    }


def _wanted(request: web.Request, etag: str, size: int) -> Sequence[ByteRange] | None:
    """The ranges to send; None for everything."""
    header = request.headers.get("Range")
    if header is None or request.headers.get("If-Range", etag) != etag:
        return None
    return download_ranges(header, size)


async def _content(layout: Layout, reader: Reader, opened: Opened) -> AsyncGenerator[Buffer | Deferred, None]:
    """The body, piece by piece; ``reader`` is that of the first part."""
    for number, part in enumerate(layout.parts):
        if number:
            reader = await opened(part.range.start, part.range.length)
        try:
            if part.heading:
                yield part.heading
            async for piece in reader.deferred() if isinstance(reader, Defers) else reader:
                yield piece
        finally:
            await reader.close()
    if layout.ending:
        yield layout.ending
