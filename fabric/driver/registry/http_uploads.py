"""HTTP of uploads: POST, PATCH, PUT, GET and DELETE under ``/v2/<name>/blobs/uploads/``."""

from __future__ import annotations

from aiohttp import web

from fabric.driver.registry import http_parts
from fabric.driver.registry.access.gate import client_of, user_of
from fabric.driver.registry.access.policy import Right
from fabric.driver.registry.errors import RegistryError, digest_invalid
from fabric.driver.registry.http_body import body_pieces, check_length, has_body
from fabric.driver.registry.names import HEX_DIGITS, Digest, parse_digest, repository_name
from fabric.driver.registry.ranges import ByteRange, progress_header, upload_range
from fabric.driver.registry.routes import Route
from fabric.driver.registry.service import Service
from fabric.driver.registry.uploads import Upload, out_of_order


async def start(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """POST: begin an upload, mount a blob (``mount``, ``from``), or take it whole (``digest``)."""
    query, user = request.query, user_of(request)
    if "mount" in query:
        mounted = parse_digest(query["mount"])
        if await _mount(service, request, route.name, mounted, query.get("from", "")):
            return blob_created(route.name, mounted)
        return _accepted(await service.uploads.start(route.name, mounted.algorithm, user))
    if "digest" in query:
        digest = parse_digest(query["digest"])
        await _check_room(service, request, route.name, 0, digest)
        with service.incoming.stream():
            upload = await service.uploads.start(route.name, digest.algorithm, user)
            upload = await _append(service, request, upload, None)
        await service.uploads.finish(upload, digest)
        return blob_created(route.name, digest)
    algorithm = query.get("digest-algorithm", "sha256")
    if algorithm not in HEX_DIGITS:
        raise digest_invalid(f"digest-algorithm is not one of {', '.join(HEX_DIGITS)}", algorithm)
    return _accepted(await service.uploads.start(route.name, algorithm, user))


async def _mount(service: Service, request: web.Request, name: str, digest: Digest, source: str) -> bool:
    """Link a blob of ``source``, or of any repository when that is empty; False when it cannot be.

    Of a repository that the client may not pull from it learns nothing, not even by a mount.
    """
    may = client_of(request).may
    sources = [repository_name(source)] if source else await service.blobs.owners(digest)
    for one in sources:
        if may(Right.PULL, one) and await service.blobs.mount(name, digest, one):
            return True
    return False


async def append(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """PATCH: add a chunk, or a stream of any length."""
    upload = await service.uploads.find(route.name, route.reference, user_of(request))
    if upload.in_parts:
        return await http_parts.append(service, request, upload)
    declared = _declared_range(request, upload)
    await _check_room(service, request, upload.name, upload.size)
    with service.incoming.stream():
        return _accepted(await _append(service, request, upload, declared))


async def finish(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """PUT: add the last bytes, if any, and make the upload a blob.  Safe to repeat."""
    if "digest" not in request.query:
        raise digest_invalid("the query has no digest", "")
    digest = parse_digest(request.query["digest"])
    if not has_body(request) and "Content-Range" not in request.headers:
        owner = user_of(request)
        if await service.uploads.finish_as_left(route.name, route.reference, owner, digest):
            return blob_created(route.name, digest)
    try:
        upload = await service.uploads.find(route.name, route.reference, user_of(request))
    except RegistryError:
        # The answer to an earlier PUT may have been lost on its way.
        if await service.uploads.was_finished(route.name, digest):
            return blob_created(route.name, digest)
        raise
    if upload.in_parts:
        return await _finish_parts(service, request, upload, digest)
    declared = _declared_range(request, upload)
    if has_body(request):
        await _check_room(service, request, upload.name, upload.size, digest)
        with service.incoming.stream():
            upload = await _append(service, request, upload, declared)
    await service.uploads.finish(upload, digest)
    return blob_created(route.name, digest)


async def _finish_parts(
    service: Service, request: web.Request, upload: Upload, digest: Digest
) -> web.StreamResponse:
    if has_body(request):
        upload = await http_parts.receive(service, request, upload)
    waiting = await http_parts.finish(service, request, upload, digest)
    return waiting if waiting is not None else blob_created(upload.name, digest)


async def status(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """GET: how much is here."""
    upload = await service.uploads.find(route.name, route.reference, user_of(request))
    if upload.in_parts:
        return await http_parts.status(service, upload)
    return web.Response(status=204, headers=_headers(upload))


async def cancel(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """DELETE: give up."""
    upload = await service.uploads.find(route.name, route.reference, user_of(request))
    await (service.parts.cancel(upload) if upload.in_parts else service.uploads.cancel(upload))
    return web.Response(status=204)


def blob_created(name: str, digest: Digest) -> web.Response:
    """201, with where the blob is."""
    headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": str(digest)}
    return web.Response(status=201, headers=headers)


async def _check_room(
    service: Service, request: web.Request, name: str, size: int, digest: Digest | None = None
) -> None:
    """Refuse bytes before they come that no quota has room for.  Raises RegistryError DENIED."""
    if request.content_length:
        await service.accounts.check_room(name, size + request.content_length, digest)


async def _append(
    service: Service, request: web.Request, upload: Upload, declared: ByteRange | None
) -> Upload:
    pieces = body_pieces(request, service.settings.client_stall_timeout_s)
    return await service.uploads.append(upload, pieces, declared)


def _declared_range(request: web.Request, upload: Upload) -> ByteRange | None:
    """The request's Content-Range.  Raises RegistryError 416 for one that is malformed or out of order."""
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    declared = upload_range(header)
    if declared is None or declared.start != upload.size:
        raise out_of_order(upload)
    check_length(request, declared.length)
    return declared


def _accepted(upload: Upload) -> web.Response:
    return web.Response(status=202, headers=_headers(upload))


def _headers(upload: Upload) -> dict[str, str]:
    return {
        "Location": upload.location,
        "Range": progress_header(upload.size),
        "Docker-Upload-UUID": upload.upload_id,
    }
