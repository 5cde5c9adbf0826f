"""HTTP of lists: repositories, tags and referrers, page by page with a Link to the next."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec
from aiohttp import web

from fabric.driver.registry.access.gate import client_of
from fabric.driver.registry.errors import unsupported
from fabric.driver.registry.manifests import OCI_INDEX
from fabric.driver.registry.names import parse_digest, repository_name, tag_name
from fabric.driver.registry.routes import Route
from fabric.driver.registry.service import Service
from fabric.settings import LIST_LIMIT_MAX


async def catalog(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """GET ``/v2/_catalog``: repositories that have had a manifest."""
    last = request.query.get("last", "")
    count = _count(request)
    may_see = client_of(request).may_see
    page = await service.repositories.catalog(count, repository_name(last) if last else "", may_see)
    headers = _link("/v2/_catalog", {"n": str(count), "last": page.names[-1]}) if page.more else {}
    return _json({"repositories": list(page.names)}, headers)


async def tags(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """GET ``/v2/<name>/tags/list``."""
    last = request.query.get("last", "")
    count = _count(request)
    page = await service.repositories.tags(route.name, count, tag_name(last) if last else "")
    path = f"/v2/{route.name}/tags/list"
    headers = _link(path, {"n": str(count), "last": page.names[-1]}) if page.more else {}
    return _json({"name": route.name, "tags": list(page.names)}, headers)


async def referrers(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    """GET ``/v2/<name>/referrers/<digest>``, filtered by ``artifactType``."""
    subject = parse_digest(route.reference)
    artifact_type = request.query.get("artifactType", "")
    page = await service.referrers.page(route.name, subject, artifact_type, request.query.get("last", ""))
    headers: dict[str, str] = {}
    if page.last:
        query = {"last": page.last} | ({"artifactType": artifact_type} if artifact_type else {})
        headers = _link(f"/v2/{route.name}/referrers/{subject}", query)
    if artifact_type:
        headers["OCI-Filters-Applied"] = "artifactType"
    return _json(page.index, headers, OCI_INDEX)


def _count(request: web.Request) -> int:
    """How many entries the query's ``n`` asks for, at most a page.  Raises RegistryError for no number."""
    text = request.query.get("n")
    if text is None:
        return LIST_LIMIT_MAX
    if not text.isascii() or not text.isdigit() or len(text) > 30:
        raise unsupported(400, "n must be a number of entries, 0 or more")
    return min(int(text), LIST_LIMIT_MAX)


def _link(path: str, query: dict[str, str]) -> dict[str, str]:
    return {"Link": f'<{path}?{urlencode(query)}>; rel="next"'}


def _json(
    value: object, headers: dict[str, str], content_type: str = "application/json"
) -> web.StreamResponse:
    return web.Response(body=msgspec.json.encode(value), headers=headers, content_type=content_type)
