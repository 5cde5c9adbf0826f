"""The request behind a commit, as receivers are told of it."""

from __future__ import annotations

import re
import uuid

from aiohttp import web

from fabric.driver.registry.hooks.origin import Origin
from fabric.driver.registry.http_actor import actor

_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")
_USER_AGENT_CHARACTERS_MAX = 200


def origin_of(request: web.Request) -> Origin:
    """What a client's request says of itself, as far as it looks like what it should be."""
    host = request.headers.get("Host", "")
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return Origin(
        id=str(uuid.uuid4()),
        addr=f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else request.remote or "",
        scheme=request.scheme,
        host=host if _HOST.fullmatch(host) is not None else "",
        method=request.method,
        useragent=request.headers.get("User-Agent", "")[:_USER_AGENT_CHARACTERS_MAX],
        user=actor(request),
    )
