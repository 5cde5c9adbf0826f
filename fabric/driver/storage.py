"""``Storage``: the fabric for programs that do not speak asyncio.

The interface of docker-registry's storage drivers, by name: ``get_content``, ``put_content``,
``stream_read``, ``stream_write``, ``list_directory``, ``exists``, ``remove``, ``move``, ``get_size``.
An event loop in a thread of its own does the work; a ``Storage`` may be used from several threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import secrets
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import uvloop

from fabric.driver.fabric_store import FabricStore
from fabric.driver.object_store import Buffer
from fabric.errors import BadRange, FabricError, NotFound, Unavailable
from fabric.settings import FRAGMENT_BYTES_MAX, LIST_LIMIT_MAX, OPERATIONS_MAX, Settings
from fabric.wire.messages import DeleteOperation, Listing, MoveOperation, ObjectInfo, PutOperation

CONTENT_BYTES_MAX = 2**62
READ_BYTES = 1024 * 1024

T = TypeVar("T")


class Storage:
    """Objects by path, over one proxy.

    Missing paths raise ``fabric.errors.NotFound``, which is a ``FileNotFoundError``.  Everything else
    that goes wrong is a ``fabric.errors.FabricError``.
    """

    def __init__(self, proxy: str = "tcp://127.0.0.1:7420", settings: Settings | None = None) -> None:
        self._store = FabricStore(proxy, settings)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fabric-storage", daemon=True)
        self._thread.start()
        self._closed = False
        self._do(self._store.start())

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get_content(self, path: str) -> bytes:
        """The whole object."""
        return self._do(self._store.read(path, CONTENT_BYTES_MAX))[1]

    def put_content(self, path: str, content: bytes) -> ObjectInfo:
        """Create or replace the object; returns when it is on every replica."""
        if len(content) <= FRAGMENT_BYTES_MAX:
            return self._do(self._store.put(path, content))
        return self._do(self._write_stream(path, _chunks(content)))

    def stream_read(self, path: str, bytes_range: tuple[int, int | None] | None = None) -> Iterator[bytes]:
        """The object in pieces of at most one fragment.

        ``bytes_range`` is (first, last), both included; last may be None for the end.
        Raises BadRange when first lies beyond the object or after last.
        """
        offset, length = 0, None
        if bytes_range is not None:
            offset, last = bytes_range
            if offset < 0 or (last is not None and last < offset):
                raise BadRange(f"bytes {offset} to {last} are not a range")
            length = None if last is None else last - offset + 1
        reader = self._do(self._store.open(path, offset, length))
        pieces = reader.__aiter__()
        try:
            while (piece := self._do(_next(pieces))) is not None:
                yield bytes(piece)
        finally:
            if not self._closed:
                self._do(reader.close())
                self._do(pieces.aclose())

    def stream_write(self, path: str, file: BinaryIO) -> ObjectInfo:
        """Create or replace the object with what ``file.read`` gives, in bounded memory.

        Nothing is visible at ``path`` before all of it is stored.
        """
        return self._do(self._write_stream(path, iter(lambda: file.read(READ_BYTES), b"")))

    def list_directory(self, path: str = "") -> list[str]:
        """Full paths of what lies directly under ``path``: objects and sub-directories, sorted.

        Raises NotFound when there is nothing.
        """
        prefix = path.strip("/") + "/" if path.strip("/") else ""
        names: list[str] = []
        after = ""
        while True:
            page = self.list_page(prefix, "/", after, LIST_LIMIT_MAX)
            names += [info.path for info in page.objects] + [name.rstrip("/") for name in page.prefixes]
            if not page.next:
                break
            after = page.next
        if not names and prefix:
            raise NotFound(f"no directory {path!r}")
        return sorted(set(names))

    def list_page(self, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000) -> Listing:
        """One page of names under a prefix; pass ``Listing.next`` as ``after`` to go on."""
        return self._do(self._store.list(prefix, delimiter=delimiter, after=after, limit=limit))

    def exists(self, path: str) -> bool:
        """Is there an object at ``path``, or anything under it?"""
        try:
            self.stat(path)
        except NotFound:
            page = self.list_page(path.rstrip("/") + "/", "", "", 1)
            return bool(page.objects)
        return True

    def remove(self, path: str) -> None:
        """Delete the object at ``path`` and everything under ``path/``.  Raises NotFound for nothing.

        Each page of a large tree is one transaction.
        """
        removed = 0
        with contextlib.suppress(NotFound):
            self._do(self._store.commit([DeleteOperation(path)]))
            removed = 1
        prefix = path.rstrip("/") + "/"
        while page := self.list_page(prefix, "", "", OPERATIONS_MAX).objects:
            deletes = [DeleteOperation(info.path, missing_ok=True) for info in page]
            self._do(self._store.commit(deletes))
            removed += len(deletes)
        if not removed:
            raise NotFound(f"nothing at {path!r}")

    def move(self, source: str, target: str) -> ObjectInfo:
        """Rename an object; replaces what is at ``target``.  Costs the same for any size."""
        (info,) = self._do(self._store.commit([MoveOperation(source, target)]))
        assert info is not None
        return info

    def get_size(self, path: str) -> int:
        """Bytes of the object."""
        return self.stat(path).size

    def stat(self, path: str) -> ObjectInfo:
        """What the catalog knows of the object."""
        return self._do(self._store.stat(path))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise Unavailable("the storage is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Unavailable("the storage was closed meanwhile") from None
        finally:
            future.cancel()  # of work that a KeyboardInterrupt left behind; otherwise it is done

    async def _shut_down(self) -> None:
        await self._store.close()
        # Other threads may be waiting for these: they get an answer before the loop ends.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()

    async def _write_stream(self, path: str, chunks: Iterator[Buffer]) -> ObjectInfo:
        loop = asyncio.get_running_loop()
        temporary = f"uploads/{secrets.token_hex(16)}"
        # Without its time, whoever discards abandoned uploads would take it for one.
        started = {"started": str(time.time_ns() // 1_000_000)}
        await self._store.commit([PutOperation(temporary, [], attributes=started, if_generation=0)])
        writer = self._store.writer(temporary, 0)
        try:
            while chunk := await loop.run_in_executor(None, next, chunks, b""):
                await writer.write(chunk)
            await writer.flush()
            (info,) = await self._store.commit([MoveOperation(temporary, path, replace_attributes=True)])
        except BaseException:
            await writer.abort()
            with contextlib.suppress(FabricError):  # the first error says what went wrong
                await self._store.commit([DeleteOperation(temporary, missing_ok=True)])
            raise
        assert info is not None
        return info


async def _next(pieces: AsyncIterator[Any]) -> Any:
    return await anext(pieces, None)


def _chunks(content: bytes) -> Iterator[Buffer]:
    view = memoryview(content)
    for start in range(0, len(view), FRAGMENT_BYTES_MAX):
        yield view[start : start + FRAGMENT_BYTES_MAX]
