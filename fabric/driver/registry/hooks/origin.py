"""Where a commit comes from: the request that made it, if one did.

A context variable, because a commit's steps know nothing of HTTP, and shall not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A client's request, as receivers are told of it.  All empty for an operator's command."""

    id: str = ""
    addr: str = ""
    scheme: str = ""
    host: str = ""
    """As the client wrote it."""
    method: str = ""
    useragent: str = ""
    user: str = ""
    """Who asks."""


NOBODY = Origin()

_ORIGIN: ContextVar[Origin] = ContextVar("origin", default=NOBODY)


def current_origin() -> Origin:
    """Of what is being done now."""
    return _ORIGIN.get()


@contextmanager
def originating(origin: Origin) -> Iterator[None]:
    """What is done meanwhile has this origin."""
    token = _ORIGIN.set(origin)
    try:
        yield
    finally:
        _ORIGIN.reset(token)
