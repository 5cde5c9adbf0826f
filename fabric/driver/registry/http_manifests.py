"""HTTP of manifests: PUT, GET, HEAD and DELETE of ``/v2/<name>/manifests/<tag or digest>``."""

from __future__ import annotations

from aiohttp import web

from fabric.driver.registry.conditions import entity_tag
from fabric.driver.registry.errors import RegistryError, precondition_failed
from fabric.driver.registry.http_actor import actor
from fabric.driver.registry.http_body import manifest_body
from fabric.driver.registry.http_conditions import conditions_of, not_modified
from fabric.driver.registry.manifest_store import TAGS_PER_PUSH_MAX, StoredManifest
from fabric.driver.registry.names import Digest, parse_reference, tag_name
from fabric.driver.registry.routes import Route
from fabric.driver.registry.service import Service


async def put(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """PUT: store a manifest under a tag, or under its digest and any ``tag`` of the query."""
    reference = parse_reference(route.reference)
    tags = [tag_name(tag) for tag in request.query.getall("tag", [])]
    if isinstance(reference, str):
        tags = [tag_name(reference)]
    if len(tags) > TAGS_PER_PUSH_MAX:
        raise RegistryError(414, "TAG_INVALID", f"one push sets at most {TAGS_PER_PUSH_MAX} tags")
    settings = service.settings
    with service.incoming.stream():
        data = await manifest_body(request, settings.manifest_bytes_max, settings.client_stall_timeout_s)
    content_type = request.headers.get("Content-Type", "")
    stored, manifest = await service.manifests.push(
        route.name, reference, tags, data, content_type, actor(request), conditions_of(request)
    )
    response = web.Response(
        status=201,
        headers={
            "Location": f"/v2/{route.name}/manifests/{stored.digest}",
            "Docker-Content-Digest": str(stored.digest),
        },
    )
    if isinstance(reference, Digest):
        for tag in tags:
            response.headers.add("OCI-Tag", tag)
    if manifest.subject is not None:
        response.headers["OCI-Subject"] = str(manifest.subject.digest)
    return response


async def get(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """GET: the exact bytes that were pushed."""
    found = await service.manifests.find(route.name, parse_reference(route.reference))
    headers = _headers(found)
    unchanged = not_modified(request, headers)
    if unchanged is not None:
        return unchanged
    data = await service.manifests.read(route.name, found)
    if service.hooks is not None:
        service.hooks.pulled(request, route, found)
    return web.Response(body=data, headers=headers)


async def head(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """HEAD: whether it is here, its type and its size."""
    found = await service.manifests.find(route.name, parse_reference(route.reference))
    headers = _headers(found)
    unchanged = not_modified(request, headers)
    if unchanged is not None:
        return unchanged
    return web.Response(headers={**headers, "Content-Length": str(found.size)})


async def delete(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """DELETE: a tag alone, or a manifest with all tags that name it."""
    reference, conditions = parse_reference(route.reference), conditions_of(request)
    if isinstance(reference, Digest):
        if not conditions.allows(entity_tag((await service.manifests.find(route.name, reference)).digest)):
            raise precondition_failed()
        await service.manifests.delete(route.name, reference, actor(request))
    else:
        await service.manifests.delete_tag(route.name, reference, actor(request), conditions)
    return web.Response(status=202)


def _headers(found: StoredManifest) -> dict[str, str]:
    return {
        "Content-Type": found.media_type,
        "Docker-Content-Digest": str(found.digest),
        "ETag": entity_tag(found.digest),
    }
