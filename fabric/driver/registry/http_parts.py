"""HTTP of uploads in parts, an extension: ``POST /v2/<name>/_fabric/uploads/parts`` and what follows.

``docs/parallel-upload.md`` is its specification.  An upload in parts lives where other uploads do; its PATCH,
PUT, GET and DELETE come here from ``http_uploads``.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from fabric.driver.registry.access.gate import user_of
from fabric.driver.registry.errors import digest_invalid, size_invalid, unsupported, upload_invalid
from fabric.driver.registry.http_body import body_pieces, check_length
from fabric.driver.registry.names import HEX_DIGITS, Digest, parse_digest
from fabric.driver.registry.part_order import PART_BYTES_MAX, PART_UNIT_BYTES, Progress
from fabric.driver.registry.ranges import ByteRange, progress_header, upload_range
from fabric.driver.registry.routes import Endpoint, Route
from fabric.driver.registry.service import Service
from fabric.driver.registry.uploads import Upload

FINISH_WAIT_S = 8.0
"""A PUT waits for the digest so long, before it says how far that is."""

PART_DIGEST = "Fabric-Part-Digest"
DIGESTED = "Fabric-Digested"

ENDPOINT = Endpoint.PARTS.value.removeprefix("/v2/<name>/")

DOCUMENT = "docs/parallel-upload.md"
"""The extension's specification, in our sources."""

_DECIMAL_DIGITS_MAX = 19


async def discover(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """GET ``_oci/ext/discover``: the extensions that this registry has."""
    extensions = []
    if service.settings.parallel_uploads:
        extensions.append(
            {
                "name": "_fabric",
                "url": DOCUMENT,
                "description": "Uploads of one blob in parts, in any order and side by side.",
                "endpoints": [ENDPOINT],
            }
        )
    return web.json_response({"extensions": extensions})


async def start(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """POST: begin an upload in parts."""
    if not service.settings.parallel_uploads:
        raise unsupported(404, "this registry takes no uploads in parts")
    algorithm = request.query.get("digest-algorithm", "sha256")
    if algorithm not in HEX_DIGITS:
        raise digest_invalid(f"digest-algorithm is not one of {', '.join(HEX_DIGITS)}", algorithm)
    upload = await service.parts.start(route.name, algorithm, user_of(request))
    sizes = {"Fabric-Part-Size-Min": str(PART_UNIT_BYTES), "Fabric-Part-Size-Max": str(PART_BYTES_MAX)}
    return web.Response(status=202, headers={**_headers(upload), **sizes})


async def receive(service: Service, request: web.Request, upload: Upload) -> Upload:
    """The body of a PATCH, or of a PUT that brings a last part; returns the upload as it is then."""
    part = _declared(request)
    digest = _part_digest(request)
    with service.incoming.stream():
        body = body_pieces(request, service.settings.client_stall_timeout_s)
        return await service.parts.receive(upload, part, body, digest)


async def append(service: Service, request: web.Request, upload: Upload) -> web.StreamResponse:
    """PATCH: one part."""
    upload = await receive(service, request, upload)
    return web.Response(status=202, headers=_headers(upload))


async def finish(
    service: Service, request: web.Request, upload: Upload, digest: Digest
) -> web.Response | None:
    """PUT, its body taken: None when the blob is there; 202 while the digest is not."""
    size = _size(request)
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + FINISH_WAIT_S
    while True:
        rounds = service.followers.rounds(upload.upload_id)
        left = await service.parts.finish(upload, digest, size)
        if left is None:
            return None
        is_here = service.followers.rounds(upload.upload_id) >= 0
        timeout_s = give_up_at - clock()
        if not is_here or not await service.followers.wait(upload.upload_id, rounds, timeout_s):
            return web.Response(
                status=202, headers={**_headers(upload), **_digested(left), "Retry-After": "1"}
            )


async def status(service: Service, upload: Upload) -> web.StreamResponse:
    """GET: which parts are here."""
    seen = await service.parts.progress(upload)
    document = {
        "size": seen.size,
        "digested": seen.digested.size,
        "waiting": [{"start": part.start, "size": part.length} for part in seen.waiting],
    }
    return web.json_response(document, headers={**_headers(upload), **_digested(seen)})


def _declared(request: web.Request) -> ByteRange:
    header = request.headers.get("Content-Range")
    declared = upload_range(header) if header is not None else None
    if declared is None:
        raise upload_invalid("each part of this upload needs a Content-Range such as 0-4194303")
    check_length(request, declared.length)
    return declared


def _part_digest(request: web.Request) -> Digest | None:
    header = request.headers.get(PART_DIGEST)
    return parse_digest(header) if header is not None else None


def _size(request: web.Request) -> int | None:
    text = request.query.get("size")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DECIMAL_DIGITS_MAX):
        raise size_invalid("size is not a number of bytes")
    return int(text)


def _headers(upload: Upload) -> dict[str, str]:
    return {
        "Location": upload.location,
        "Range": progress_header(upload.size),
        "Docker-Upload-UUID": upload.upload_id,
    }


def _digested(seen: Progress) -> dict[str, str]:
    return {DIGESTED: str(seen.digested.size)}
