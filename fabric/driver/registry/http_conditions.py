"""HTTP of conditions: what the request's If-Match and If-None-Match say, and the answers to them."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from fabric.driver.registry.conditions import Conditions, parse_conditions
from fabric.driver.registry.errors import precondition_failed


def conditions_of(request: web.Request) -> Conditions:
    """The conditions of a request, true of everything when it has none."""
    return parse_conditions(_list(request, "If-Match"), _list(request, "If-None-Match"))


def not_modified(request: web.Request, headers: Mapping[str, str]) -> web.Response | None:
    """The 304 for a GET or HEAD of content with these headers; None when it must be answered in full.

    Raises RegistryError 412 when the client wants other content than this.
    """
    conditions = conditions_of(request)
    if conditions.refuses(headers["ETag"]):
        raise precondition_failed()
    return web.Response(status=304, headers=headers) if conditions.knows(headers["ETag"]) else None


def _list(request: web.Request, name: str) -> str | None:
    lines = request.headers.getall(name, [])
    return ", ".join(lines) if lines else None
