"""Sends a body of known length, from a store that may fail in the middle, to a client that may stall."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable

from aiohttp import web

from fabric.driver.object_store import Buffer
from fabric.driver.registry.errors import RegistryError
from fabric.errors import FabricError

WRITE_BYTES = 256 * 1024
"""Written at once, and within the stall timeout: what decides how slow a client may be."""

_log = logging.getLogger(__name__)


async def send(
    request: web.Request,
    response: web.StreamResponse,
    content: AsyncIterable[Buffer],
    length: int,
    stall_s: float,
) -> None:
    """Write all ``length`` bytes, or cut the connection: a part must never look like the whole."""
    left = length
    try:
        async for piece in content:
            left -= len(piece)
            await _write(response, piece, stall_s)
    except (FabricError, RegistryError) as error:
        _log.error("download of %s cut %d bytes before its end: %s", request.path, left, error)
        left = left or 1
    except TimeoutError:
        _log.warning("download of %s cut: the client took nothing for %g s", request.path, stall_s)
        left = left or 1
    if left and request.transport is not None:
        request.transport.abort()


async def _write(response: web.StreamResponse, piece: Buffer, stall_s: float) -> None:
    view = memoryview(piece)
    for start in range(0, len(view), WRITE_BYTES):
        async with asyncio.timeout(stall_s):
            await response.write(view[start : start + WRITE_BYTES])
