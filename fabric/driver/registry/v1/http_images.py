"""HTTP of images: what is pushed piece by piece, and what is pulled."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import Any

import msgspec
from aiohttp import web

from fabric.driver.registry.byteranges import lay_out
from fabric.driver.registry.conditions import entity_tag
from fabric.driver.registry.http_body import body_pieces, manifest_body
from fabric.driver.registry.http_conditions import not_modified
from fabric.driver.registry.http_stream import send
from fabric.driver.registry.ranges import ByteRange, download_ranges
from fabric.driver.registry.v1.checksums import declared_checksum
from fabric.driver.registry.v1.links import MUST_EXIST
from fabric.driver.registry.v1.names import files_path, json_path, layer_path
from fabric.driver.registry.v1.pushes import JSON_BYTES_MAX
from fabric.driver.registry.v1.routes import Route
from fabric.driver.registry.v1.service import LegacyService
from fabric.driver.registry.v1.tarball import listing
from fabric.driver.registry.v1.visitor import Visitor, absent
from fabric.errors import NotFound, Precondition
from fabric.settings import MIB
from fabric.wire.messages import CheckOperation, ObjectInfo, PutOperation

LISTING_BYTES_MAX = 512 * MIB


def success(value: object = True, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer in JSON; ``true`` where there is nothing to say."""
    no_cache = {"Cache-Control": "no-cache"}
    return web.Response(
        status=status,
        body=msgspec.json.encode(value),
        headers={**no_cache, **(headers or {})},
        content_type="application/json",
    )


# --- push -----------------------------------------------------------------------------------------


async def put_json(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``json``: the first step of a push."""
    data = await manifest_body(request, JSON_BYTES_MAX, service.settings.client_stall_timeout_s)
    await service.pushes.begin(visitor, route.image, data)
    return success()


async def put_layer(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``layer``: its bytes, as they come."""
    push = await service.pushes.find(visitor, route.image)
    with service.incoming.stream():
        await service.pushes.take_layer(push, body_pieces(request, service.settings.client_stall_timeout_s))
    return success()


async def put_checksum(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``checksum``: the last step; the image is there from now on."""
    await service.pushes.finish(visitor, route.image, declared_checksum(request.headers))
    return success()


# --- pull -----------------------------------------------------------------------------------------


async def get_json(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``json``: as it was pushed, with the layer's size and checksums."""
    info = await service.images.find(visitor, route.image)
    headers = _headers(info)
    unchanged = not_modified(request, headers)
    if unchanged is not None:
        return unchanged
    checksum = info.attributes["checksum"]
    headers |= {
        "X-Docker-Size": info.attributes["size"],
        "X-Docker-Checksum-Payload": checksum,
        "X-Docker-Payload-Checksum": checksum,
        "X-Docker-Checksum": info.attributes.get("tarsum", checksum),
    }
    try:
        _, data = await service.store.read(json_path(route.image), JSON_BYTES_MAX)
    except NotFound as error:
        raise absent() from error
    return web.Response(body=data, headers=headers, content_type="application/json")


async def get_ancestry(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``ancestry``: the image, its parent, and so on."""
    await service.images.find(visitor, route.image)
    return success(await service.links.ancestry(route.image))


async def get_checksum(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``checksum``: those that were verified."""
    noted = (await service.images.find(visitor, route.image)).attributes
    return success([noted[key] for key in ("checksum", "tarsum") if key in noted])


async def get_files(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``files``: what is in the layer.  Made at the first time, and kept."""
    await service.images.find(visitor, route.image)
    path = files_path(route.image)
    try:
        _, data = await service.store.read(path, LISTING_BYTES_MAX)
    except NotFound:
        try:
            entries = await service.reading.run(layer_path(route.image), listing)
        except NotFound as error:
            raise absent() from error
        data = msgspec.json.encode(entries)
        fragments = list(await service.store.stage(data))
        with suppress(Precondition):  # somebody else has made it, or the image has gone
            await service.store.commit(
                [
                    CheckOperation(json_path(route.image), MUST_EXIST),
                    PutOperation(path, fragments, if_generation=0, immutable=True),
                ]
            )
    return web.Response(body=data, content_type="application/json")


async def get_layer(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET and HEAD ``layer``: the bytes, or one range of them, by which a client resumes."""
    info = await service.images.find(visitor, route.image)
    size = int(info.attributes["size"])
    headers = _headers(info) | {"Accept-Ranges": "bytes"}
    unchanged = not_modified(request, headers)
    if unchanged is not None:
        return unchanged
    part = _wanted(request, headers["ETag"], size)
    layout = lay_out([part] if part else None, size, "", "")
    first = layout.parts[0].range
    response = web.StreamResponse(status=layout.status, headers={**headers, **layout.headers})
    response.content_type = "application/octet-stream"
    response.content_length = layout.length
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    with service.outgoing.stream():
        try:
            reader = await service.store.open(layer_path(route.image), first.start, first.length)
        except NotFound as error:
            raise absent() from error
        try:
            await response.prepare(request)
            pieces: Any = reader.__aiter__()
            async with aclosing(pieces):
                stall_s = service.settings.client_stall_timeout_s
                await send(request, response, pieces, layout.length, stall_s, service.writing)
        finally:
            await reader.close()
    return response


def _wanted(request: web.Request, etag: str, size: int) -> ByteRange | None:
    """The range to send; None for everything, also when several are asked for."""
    header = request.headers.get("Range")
    if header is None or request.method != "GET" or request.headers.get("If-Range", etag) != etag:
        return None
    ranges = download_ranges(header, size)
    return ranges[0] if ranges is not None and len(ranges) == 1 else None


def _headers(info: ObjectInfo) -> dict[str, str]:
    """An image never changes, but it may go, and not everybody may see it."""
    return {"ETag": entity_tag(info.attributes["checksum"]), "Cache-Control": "private, no-cache"}
