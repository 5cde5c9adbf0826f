"""HTTP of repositories, their tags, users and search."""

from __future__ import annotations

import msgspec
from aiohttp import web

from fabric.driver.registry.access.gate import client_of
from fabric.driver.registry.access.policy import Identity, Right
from fabric.driver.registry.hosts import is_host
from fabric.driver.registry.http_body import manifest_body
from fabric.driver.registry.v1.http_images import success
from fabric.driver.registry.v1.names import full_name, image_id, refused
from fabric.driver.registry.v1.repositories import check_announced
from fabric.driver.registry.v1.routes import Route
from fabric.driver.registry.v1.service import LegacyService
from fabric.driver.registry.v1.visitor import Visitor
from fabric.settings import KIB, MIB

ANNOUNCED_BYTES_MAX = 4 * MIB
_SMALL_BYTES_MAX = 64 * KIB


async def _session_headers(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor, *, may_write: bool
) -> dict[str, str]:
    """The token for what follows, and where to send it: to the place where this request went."""
    host = request.headers.get("Host", "")
    if not is_host(host):
        raise refused(400, "the Host header is not a host")
    token = await service.sessions.open(route.name, visitor.user, may_write=may_write)
    return {
        "X-Docker-Token": token,
        "WWW-Authenticate": f"Token {token}",
        "X-Docker-Endpoints": host,
        "Cache-Control": "no-store",
    }


async def _announced(service: LegacyService, request: web.Request) -> None:
    body = await manifest_body(request, ANNOUNCED_BYTES_MAX, service.settings.client_stall_timeout_s)
    check_announced(body)


async def put_repository(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``<name>/``: a push begins."""
    await _announced(service, request)
    headers = await _session_headers(service, request, route, visitor, may_write=True)
    await service.repositories.announce(route.name)
    return success("", 200, headers)


async def put_images(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``<name>/images``: a push ends.  What is here is known without the client's list."""
    await _announced(service, request)
    headers = await _session_headers(service, request, route, visitor, may_write=True)
    await service.repositories.announce(route.name)
    return web.Response(status=204, headers=headers)


async def get_images(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``<name>/images``: a pull begins."""
    images = await service.repositories.images(route.name)
    headers = await _session_headers(service, request, route, visitor, may_write=False)
    return success(images, 200, headers)


async def delete_repository(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """DELETE ``<name>/``: the repository, its tags, and images that no other has."""
    policy = client_of(request).policy
    await service.repositories.delete(route.name, lambda tag: policy.is_immutable(route.name, tag))
    return success()


async def get_tags(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``<name>/tags``: each tag's image."""
    return success(await service.repositories.tags(route.name))


async def get_tag(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``<name>/tags/<tag>``: its image."""
    return success(await service.repositories.tagged(route.name, route.tag))


async def put_tag(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``<name>/tags/<tag>``: the body is the image's id, as JSON."""
    data = await manifest_body(request, _SMALL_BYTES_MAX, service.settings.client_stall_timeout_s)
    try:
        image = image_id(msgspec.json.decode(data, type=str))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused(400, "Invalid data: an image's id in quotes is needed") from error
    await service.repositories.set_tag(
        visitor, route.name, route.tag, image, once=_is_immutable(request, route)
    )
    return success()


async def delete_tag(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """DELETE ``<name>/tags/<tag>``; its image stays."""
    await service.repositories.delete_tag(route.name, route.tag, once=_is_immutable(request, route))
    return success()


def _is_immutable(request: web.Request, route: Route) -> bool:
    return client_of(request).policy.is_immutable(route.name, route.tag)


async def get_properties(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``<name>/properties``: whether strangers may pull."""
    return success({"access": _access(request, route)})


async def put_properties(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``<name>/properties``: agreed to when it is so already; it is for the access file to say."""
    data = await manifest_body(request, _SMALL_BYTES_MAX, service.settings.client_stall_timeout_s)
    try:
        wanted = msgspec.json.decode(data, type=dict[str, str])["access"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise refused(400, "Invalid data: an object with the key access is needed") from error
    if wanted != _access(request, route):
        raise refused(409, f"{full_name(route.name)} is {_access(request, route)} by the access file")
    return success()


def _access(request: web.Request, route: Route) -> str:
    strangers = client_of(request).policy.decide(Identity(), route.name)
    return "public" if Right.PULL in strangers.may else "private"


async def put_auth(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``<name>/auth``: whether the client may push."""
    return success("OK")


# --- users and search -----------------------------------------------------------------------------


async def get_users(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``users``: whether the name and the password are right."""
    return success("OK")


async def post_users(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """POST ``users``: there is no signing up.  At this answer Docker's client tries to log in instead."""
    return success("Username or email already exists", 400)


async def put_user(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """PUT ``users/<name>/``: users are changed where the operator keeps them."""
    raise refused(403, "users are not changed over this protocol")


async def search(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``search?q=``: repositories of this protocol by a part of their names."""
    text = request.query.get("q", "")
    names = await service.repositories.search(text, client_of(request).may_see)
    results = [{"name": full_name(name), "description": ""} for name in names]
    return success({"query": text, "num_results": len(results), "results": results})


async def ping(
    service: LegacyService, request: web.Request, route: Route, visitor: Visitor
) -> web.StreamResponse:
    """GET ``_ping``.  ``standalone``: no sessions are needed, since everybody may do everything."""
    standalone = "true" if visitor.is_trusted else "false"
    return success(
        {}, 200, {"X-Docker-Registry-Version": "0.9.1", "X-Docker-Registry-Standalone": standalone}
    )
