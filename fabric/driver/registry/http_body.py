"""Bodies of requests, and how many streams may run at once.

Each stream holds a bounded amount of memory; the gate bounds how many there are.  A client that sends
nothing for ``stall_s``, or is that far behind the slowest rate, is given up: it cannot hold a place for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import web

from fabric.driver.registry.errors import (
    BodyInterrupted,
    BodyMalformed,
    manifest_too_large,
    size_invalid,
    too_many,
)

RATE_MIN_BYTES_S = 1024
"""The slowest that a client may send, on the whole."""


FRAMING_CHECK_S = 1.0
"""How long a body may bring nothing before it is looked at whether its framing broke."""


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
    """The body in pieces: each is what has arrived since the last.

    Raises BodyInterrupted when the client disconnects, stalls, or trickles; BodyMalformed when it breaks
    the encoding.
    """
    clock = asyncio.get_running_loop().time
    patience_s, idle_s = stall_s, 0.0
    while True:
        asked_at = clock()
        piece = await _next_piece(request, min(patience_s, stall_s - idle_s, FRAMING_CHECK_S))
        # Only waiting for the client counts: the store may take its time.
        waited_s = clock() - asked_at
        patience_s -= waited_s
        idle_s += waited_s
        if piece:
            patience_s += len(piece) / RATE_MIN_BYTES_S
            idle_s = 0.0
            yield piece
        elif request.content.at_eof():
            return
        elif min(patience_s, stall_s - idle_s) <= 0:
            raise BodyInterrupted(f"too little arrived in {stall_s:g} s")


async def _next_piece(request: web.Request, timeout_s: float) -> bytes:
    """What has arrived; empty at the end of the body, and when nothing does in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await request.content.readany()
    except TimeoutError:
        if _is_framing_broken(request):
            raise BodyMalformed("the body's framing is broken") from None
        return b""
    except ConnectionError as error:
        raise BodyInterrupted("the body broke off") from error
    except web.RequestPayloadError as error:
        raise BodyMalformed("the body's framing is broken") from error


def _is_framing_broken(request: web.Request) -> bool:
    """Whether the parser has given up on this body.

    It does not tell the body's reader: it puts its complaint where the next request would be.
    """
    return bool(getattr(request.protocol, "_messages", ()))


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
