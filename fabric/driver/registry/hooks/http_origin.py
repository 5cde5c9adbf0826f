"""The request behind a commit, as receivers are told of it."""

from __future__ import annotations

import uuid

from aiohttp import web

from fabric.driver.registry.hooks.origin import Origin
from fabric.driver.registry.hosts import is_host
from fabric.driver.registry.http_actor import actor

_USER_AGENT_CHARACTERS_MAX = 200


def origin_of(request: web.Request) -> Origin:
    """What a client's request says of itself, as far as it looks like what it should be."""
    host = request.headers.get("Host", "")
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return Origin(
        id=str(uuid.uuid4()),
        addr=f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else request.remote or "",
        scheme=request.scheme,
        host=host if is_host(host) else "",
        method=request.method,
        useragent=request.headers.get("User-Agent", "")[:_USER_AGENT_CHARACTERS_MAX],
        user=actor(request),
    )
