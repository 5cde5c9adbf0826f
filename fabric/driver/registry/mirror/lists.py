"""Lists that the upstream knows better: tags, of which only some are here, and referrers.

They are passed on page by page; the next page's address is made ours.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from fabric.driver.registry.errors import name_unknown
from fabric.driver.registry.manifests import OCI_INDEX
from fabric.driver.registry.mirror.failures import UpstreamFailed, UpstreamWrong
from fabric.driver.registry.mirror.upstream import Reply, Upstream
from fabric.driver.registry.names import is_tag, parse_digest
from fabric.driver.registry.routes import Route
from fabric.settings import MIB

LIST_BYTES_MAX = 4 * MIB
QUERY_CHARACTERS_MAX = 1000

_NEXT = re.compile(r'<[^<>?]*\?([!#-;=?-~]{1,1000})>\s*;\s*rel="?next"?')


async def tags_upstream(upstream: Upstream, request: web.Request, route: Route) -> web.StreamResponse:
    """The upstream's answer to ``tags/list``.  Raises UpstreamFailed; RegistryError NAME_UNKNOWN."""
    reply = await _ask(upstream, request, route, "tags/list")
    if reply.status == 404:
        raise name_unknown(route.name)
    tags = _document(upstream, reply).get("tags")
    if tags is None:
        tags = []  # what Docker's registry says of none
    if not isinstance(tags, list) or not all(isinstance(tag, str) and is_tag(tag) for tag in tags):
        raise UpstreamWrong(f"{upstream.table.upstream} lists what are no tags")
    body = msgspec.json.encode({"name": route.name, "tags": tags})
    headers = _link(reply, f"/v2/{route.name}/tags/list")
    return web.Response(body=body, headers=headers, content_type="application/json")


async def referrers_upstream(upstream: Upstream, request: web.Request, route: Route) -> web.StreamResponse:
    """The upstream's answer to ``referrers``.  Raises UpstreamFailed, also when it knows no such list."""
    subject = parse_digest(route.reference)
    reply = await _ask(upstream, request, route, f"referrers/{subject}")
    if reply.status == 404:
        raise UpstreamFailed(f"{upstream.table.upstream} lists no referrers")
    document = _document(upstream, reply)
    if not isinstance(document.get("manifests"), list):
        raise UpstreamWrong(f"{upstream.table.upstream} lists no referrers, but something else")
    headers = _link(reply, f"/v2/{route.name}/referrers/{subject}")
    if reply.headers.get("OCI-Filters-Applied") == "artifactType":
        headers["OCI-Filters-Applied"] = "artifactType"
    return web.Response(body=reply.body, headers=headers, content_type=OCI_INDEX)


async def _ask(upstream: Upstream, request: web.Request, route: Route, path: str) -> Reply:
    there = upstream.mapped.upstream_name(route.name)
    assert there is not None, "a request is only given to the mirror that is for it"
    query = request.raw_path.partition("?")[2]
    if len(query) > QUERY_CHARACTERS_MAX:
        raise UpstreamWrong("the query is too long to be passed on")
    reply = await upstream.ask("GET", there, f"{path}?{query}" if query else path, LIST_BYTES_MAX)
    if reply.status not in (200, 404):
        raise UpstreamWrong(f"{upstream.table.upstream} answered {reply.status}")
    return reply


def _document(upstream: Upstream, reply: Reply) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamWrong(f"{upstream.table.upstream} answered something that is not JSON") from error
    if not isinstance(document, dict):
        raise UpstreamWrong(f"{upstream.table.upstream} answered JSON that is no list")
    return document


def _link(reply: Reply, path: str) -> dict[str, str]:
    """The next page, at our own address."""
    found = _NEXT.search(reply.headers.get("Link", ""))
    return {"Link": f'<{path}?{found[1]}>; rel="next"'} if found is not None else {}
