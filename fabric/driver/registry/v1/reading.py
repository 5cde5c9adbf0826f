"""Lets blocking code read an object: on a thread of its own, which waits for the event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fabric.driver.object_store import Buffer, ObjectStore
from fabric.driver.registry.http_body import StreamGate
from fabric.driver.registry.v1.names import refused
from fabric.driver.registry.v1.tarball import ReadPiece, UnreadableLayer

THREADS = 2
READINGS_MAX = 8
"""Layers read at a time, those that wait for a thread included."""

Result = TypeVar("Result")


class _Source:
    """The bytes of a reader, for another thread."""

    def __init__(self, pieces: AsyncIterator[Buffer]) -> None:
        self._pieces = pieces
        self._loop = asyncio.get_running_loop()
        self._waiting: concurrent.futures.Future[Buffer] | None = None
        self._is_closed = False

    def read(self) -> bytes:
        """The next piece; empty at the end.  Raises UnreadableLayer when nobody wants it any more."""
        self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        if self._is_closed:
            self._waiting.cancel()
        try:
            return bytes(self._waiting.result())
        except concurrent.futures.CancelledError:
            raise UnreadableLayer("the reading was given up") from None

    async def _next(self) -> Buffer:
        return await anext(self._pieces, b"")

    def close(self) -> None:
        """Wake the other thread, if it waits."""
        self._is_closed = True
        if self._waiting is not None:
            self._waiting.cancel()


class LayerReading:
    """Looks into layers."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="layer")
        self._gate = StreamGate(READINGS_MAX)

    def close(self) -> None:
        """End the threads; no reading may be under way."""
        self._threads.shutdown()

    async def run(self, path: str, work: Callable[[ReadPiece], Result]) -> Result:
        """What ``work`` makes of the object.  Raises RegistryError 400 when it cannot be read, NotFound."""
        with self._gate.stream():
            reader = await self._store.open(path)
            source = _Source(reader.__aiter__())
            try:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, work, source.read)
            except UnreadableLayer as error:
                raise refused(400, f"Layer format not supported: {error}") from error
            finally:
                source.close()
                await reader.close()
