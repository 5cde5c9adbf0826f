"""Who does it: the name that goes into histories and the trash."""

from __future__ import annotations

from aiohttp import web

from fabric.driver.registry.access.gate import client_of
from fabric.driver.registry.manifest_store import ANONYMOUS


def actor(request: web.Request) -> str:
    """The user who was let in; ``anonymous`` where nobody has to say who they are."""
    return client_of(request).identity.user or ANONYMOUS
