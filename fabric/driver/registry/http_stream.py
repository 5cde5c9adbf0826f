"""Sends a body of known length, from a store that may fail in the middle, to a client that may stall."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from aiohttp import web

from fabric.driver.object_store import Buffer, Deferred
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.http_outlet import Outlet, loaded
from fabric.errors import FabricError

WRITE_BYTES = 256 * 1024
"""Written at once, and within the stall timeout: what decides how slow a client may be."""

_log = logging.getLogger(__name__)


async def send(
    request: web.Request,
    response: web.StreamResponse,
    content: AsyncIterable[Buffer | Deferred],
    length: int,
    stall_s: float,
    threads: Executor,
) -> None:
    """Write all ``length`` bytes, or cut the connection: a part must never look like the whole.

    Nothing is raised for a store that fails, nor for a client that stalls or leaves.  What is larger than
    ``WRITE_BYTES`` is written by ``threads`` where that can be.
    """
    left = length
    body = _Body(request, response, stall_s, threads)
    try:
        async for piece in content:
            left -= len(piece)
            await body.write(piece)
        await body.finish()
    except _ClientGone as gone:
        _log.info("download of %s ended by its client %d bytes before its end: %s", request.path, left, gone)
        left = left or 1
    except (FabricError, RegistryError) as error:
        _log.error("download of %s cut %d bytes before its end: %s", request.path, left, error)
        left = left or 1
    except TimeoutError:
        _log.warning("download of %s cut: the client took nothing for %g s", request.path, stall_s)
        left = left or 1
    finally:
        body.close()
    if left and request.transport is not None:
        request.transport.abort()


class _ClientGone(Exception):
    """The client closed its connection: told apart from a store whose connection broke."""


@contextmanager
def _telling_clients_from_stores() -> Iterator[None]:
    try:
        yield
    except ConnectionError as error:
        raise _ClientGone(str(error)) from error


class _Body:
    """Begins in the framework's way, with the headers; goes on past it when a piece is worth that."""

    def __init__(
        self, request: web.Request, response: web.StreamResponse, stall_s: float, threads: Executor
    ) -> None:
        self._request = request
        self._response = response
        self._stall_s = stall_s
        self._threads = threads
        self._outlet: Outlet | None = None

    async def write(self, piece: Buffer | Deferred) -> None:
        """Raises TimeoutError, _ClientGone, and FabricError when a deferred piece cannot be had."""
        with _telling_clients_from_stores():
            if self._outlet is not None:
                await self._outlet.write(piece, self._stall_s)
            else:
                await self._write_anyhow(memoryview(await loaded(piece, self._threads)))

    async def finish(self) -> None:
        """Nothing is left in line.  Raises what ``write`` raises."""
        if self._outlet is not None:
            with _telling_clients_from_stores():
                await self._outlet.finish(self._stall_s)

    async def _write_anyhow(self, view: memoryview) -> None:
        if len(view) > WRITE_BYTES:
            await self._write_out(view[:WRITE_BYTES])
            view = view[WRITE_BYTES:]
            self._outlet = Outlet.take(self._request, self._threads)
        if self._outlet is not None:
            await self._outlet.write(view, self._stall_s)
            return
        for start in range(0, len(view), WRITE_BYTES):
            await self._write(view[start : start + WRITE_BYTES])

    async def _write(self, view: memoryview) -> None:
        async with asyncio.timeout(self._stall_s):
            await self._response.write(view)

    async def _write_out(self, view: memoryview) -> None:
        """Return only when the transport holds nothing any more."""
        transport = self._request.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=0)
        await self._write(view)
        if transport is not None:
            transport.set_write_buffer_limits()

    def close(self) -> None:
        """The framework may write again."""
        if self._outlet is not None:
            self._outlet.close()
