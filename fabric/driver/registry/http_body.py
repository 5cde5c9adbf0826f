"""Bodies of requests, and how many streams may run at once.

Each stream holds a bounded amount of memory; the gate bounds how many there are.  A client that sends
nothing for ``stall_s`` is given up, so that it cannot hold a place for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import web

from fabric.driver.registry.errors import (
    BodyInterrupted,
    manifest_too_large,
    size_invalid,
    too_many,
)


class StreamGate:
    """A limit on streams under way."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._count = 0

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A place for as long as the block runs.  Raises RegistryError TOOMANYREQUESTS (429)."""
        if self._count >= self._count_max:
            raise too_many(f"{self._count_max} streams are under way")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


async def body_pieces(request: web.Request, stall_s: float) -> AsyncIterator[bytes]:
    """The body in pieces as they arrived, not joined: a joined one would cost a copy of everything.

    Raises BodyInterrupted when the client disconnects, breaks the encoding or stalls.
    """
    content = request.content
    while True:
        try:
            async with asyncio.timeout(stall_s):
                piece, _ = await content.readchunk()
        except TimeoutError as error:
            raise BodyInterrupted(f"nothing arrived for {stall_s:g} s") from error
        except (ConnectionError, web.RequestPayloadError) as error:
            raise BodyInterrupted("the body broke off") from error
        if piece:
            yield piece
        elif content.at_eof():
            return


async def manifest_body(request: web.Request, bytes_max: int, stall_s: float) -> bytes:
    """A whole body of at most ``bytes_max``.  Raises RegistryError 413, BodyInterrupted."""
    if request.content_length is not None and request.content_length > bytes_max:
        raise manifest_too_large(bytes_max)
    collected = bytearray()
    async for piece in body_pieces(request, stall_s):
        collected += piece
        if len(collected) > bytes_max:
            raise manifest_too_large(bytes_max)
    return bytes(collected)


def has_body(request: web.Request) -> bool:
    """Whether the request comes with bytes, as far as its headers tell."""
    return request.body_exists and request.content_length != 0


def check_length(request: web.Request, declared_length: int) -> None:
    """Hold Content-Length against Content-Range.  Raises RegistryError SIZE_INVALID."""
    if request.content_length is not None and request.content_length != declared_length:
        raise size_invalid(
            f"Content-Length is {request.content_length}, Content-Range spans {declared_length} bytes"
        )
