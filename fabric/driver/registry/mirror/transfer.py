"""One blob on its way from the upstream into the store, and to any number of clients.

Two coroutines share a window of memory::

    upstream --receive--> window --store--> upload, segment by segment --finish--> blob
                            |                 |                                      |
                            +-------- readers, each at a position of its own --------+

``receive`` waits while the window is full, ``store`` empties it, and a reader takes each byte from where
it is: the window, the upload's durable part, or the blob.  So no reader, and none that stops, holds up
the transfer or another reader.

The digest is verified before the upload becomes a blob.  Until then the last byte is given to nobody: a
client may see wrong bytes of a bad upstream, but never a whole answer of them.

A connection that breaks is made anew from where it broke, a few times.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from fabric.driver.object_store import Buffer
from fabric.driver.registry.blobs import MUST_EXIST
from fabric.driver.registry.bookkeeping import linking_blob
from fabric.driver.registry.errors import RegistryError, from_store
from fabric.driver.registry.mirror.download import head_blob, receive
from fabric.driver.registry.mirror.failures import UpstreamFailed, UpstreamWrong
from fabric.driver.registry.mirror.upstream import Upstream
from fabric.driver.registry.mirror.window import Window
from fabric.driver.registry.names import Digest, blob_path, upload_path
from fabric.driver.registry.references import exists
from fabric.driver.registry.service import Service
from fabric.driver.registry.uploads import Upload
from fabric.errors import FabricError, NotFound, Precondition
from fabric.settings import FRAGMENT_BYTES_MAX, MIB
from fabric.wire.messages import CheckOperation

WINDOW_BYTES = 16 * MIB
SEGMENT_BYTES = 2 * FRAGMENT_BYTES_MAX
"""Made durable at once."""

CONNECTIONS_MAX = 4
"""For one blob, one after another."""

_log = logging.getLogger(__name__)


class Transfer:
    """See above.  Create it, and ``run`` it in a task.  ``there``: what ``name`` is called upstream."""

    def __init__(self, service: Service, upstream: Upstream, name: str, there: str, digest: Digest) -> None:
        self.size = -1
        """In bytes; known from the moment the upstream answers."""
        self.readers = 0
        self.is_done = False
        self.failure: RegistryError | None = None
        self._store, self._blobs, self._uploads = service.store, service.blobs, service.uploads
        self._upstream = upstream
        self._name, self._there, self._digest = name, there, digest
        self._window = Window()
        self._upload: Upload | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether it came to an end, good or bad."""
        return self.is_done or self.failure is not None

    @property
    def received(self) -> int:
        """Bytes that came so far."""
        return self._window.end

    @property
    def _durable(self) -> int:
        return self._upload.size if self._upload is not None else 0

    async def run(self, now_ms: int) -> None:
        """Bring the blob here.  What goes wrong is left in ``failure``, for all readers."""
        try:
            if not await self._is_here() and not await self._adopt(now_ms):
                await self._transfer()
            self.is_done = True
        except UpstreamFailed as error:
            _log.warning("%s@%s: %s", self._name, self._digest, error.message)
            self.failure = error.answer()
        except RegistryError as error:
            self.failure = error
        except FabricError as error:
            _log.warning("%s@%s cannot be stored: %s", self._name, self._digest, error)
            self.failure = from_store(error)
        self._tell()

    def give_up(self) -> None:
        """It is not run any more: nobody may wait for it."""
        if not self.is_over:
            self.failure = UpstreamFailed("the transfer was given up").answer()
            self._tell()

    async def _is_here(self) -> bool:
        """Another process, or another transfer, may have been faster."""
        try:
            self.size = await self._blobs.size(self._name, self._digest)
        except RegistryError:
            return False
        return True

    async def _adopt(self, now_ms: int) -> bool:
        """Link bytes that another repository has, if the upstream says that this one has them too."""
        path = blob_path(self._digest)
        if not await exists(self._store, path):
            return False
        size = await head_blob(self._upstream, self._there, self._digest)
        link = linking_blob(self._name, self._digest, size, now_ms)
        try:
            if (await self._store.stat(path)).size != size:
                return False
            await self._store.commit([CheckOperation(path, MUST_EXIST), *link])
        except (NotFound, Precondition):
            return False
        self.size = size
        return True

    # --- from the upstream to the store -------------------------------------------------------------

    async def _transfer(self) -> None:
        receiving = self._receiving = asyncio.create_task(self._receive())
        receiving.add_done_callback(lambda _: self._tell())
        try:
            while self.size < 0:
                await self._wait(receiving)
            self._upload = await self._uploads.start(self._name, self._digest.algorithm)
            await self._store_all(self._upload, receiving)
        except BaseException:
            if self._upload is not None:
                with suppress(FabricError):  # then it expires, like any upload
                    await self._uploads.cancel(self._upload)
            raise
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _wait(self, receiving: asyncio.Task[None]) -> None:
        """Until something changed.  Raises what ended the receiving."""
        if receiving.done():
            receiving.result()
            raise AssertionError("all was received, and something waits for more")
        await self._changed.wait()

    async def _receive(self) -> None:
        connections = 0
        while self.size < 0 or self.received < self.size:
            connections += 1
            try:
                await self._receive_once()
            except UpstreamFailed as error:
                if connections == CONNECTIONS_MAX or not self.received or isinstance(error, UpstreamWrong):
                    raise
                _log.info("%s@%s goes on at %d: %s", self._name, self._digest, self.received, error.message)
            else:
                return

    async def _receive_once(self) -> None:
        coming = receive(self._upstream, self._there, self._digest, self.received, self.size)
        async with aclosing(coming) as pieces:
            async for size, data in pieces:
                self.size = size
                if data:
                    self._window.add(data)
                self._tell()
                while self._window.size >= WINDOW_BYTES:
                    await self._changed.wait()

    async def _store_all(self, upload: Upload, receiving: asyncio.Task[None]) -> None:
        while upload.size < self.size:
            async with aclosing(self._segment(upload.size, receiving)) as segment:
                upload = self._upload = await self._uploads.append(upload, segment, None)
            self._window.drop_before(upload.size)
            self._tell()
        try:
            await self._uploads.finish(upload, self._digest)
        except RegistryError as error:
            if error.code != "DIGEST_INVALID":
                raise
            raise UpstreamWrong(f"{self._upstream.table.upstream}: {error.message}") from error

    async def _segment(self, position: int, receiving: asyncio.Task[None]) -> AsyncGenerator[Buffer, None]:
        end = min(self.size, position + SEGMENT_BYTES)
        while position < end:
            data = self._window.read(position, end)
            if data is None:
                await self._wait(receiving)
            else:
                position += len(data)
                yield data

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # --- to readers ---------------------------------------------------------------------------------

    async def known_size(self) -> int:
        """Size in bytes, as soon as it is known.  Raises RegistryError when it will not be."""
        while self.size < 0 and not self.is_over:
            await self._changed.wait()
        if self.failure is not None:
            raise self.failure
        return self.size

    async def open(self, start: int, length: int) -> TransferReader:
        """Read so many bytes from ``start``, as they come."""
        return TransferReader(self, start, start + length)

    async def pieces(self, position: int, end: int) -> AsyncGenerator[Buffer, None]:
        """The bytes from ``position`` to ``end``.  Raises RegistryError when they do not come."""
        while position < end or (end == self.size and not self.is_done):
            if self.failure is not None:
                raise self.failure
            if self.is_done:
                source = self._blob(position, end)
            else:
                visible = min(end, self.size - 1)
                data = self._window.read(position, visible)
                if data is not None:
                    position += len(data)
                    yield data
                    continue
                source = self._uploaded(position, min(visible, self._durable))
            before = position
            async with aclosing(source) as stored:
                async for piece in stored:
                    position += len(piece)
                    yield piece
            if position == before and not self.is_over:
                await self._changed.wait()

    async def _blob(self, position: int, end: int) -> AsyncGenerator[Buffer, None]:
        reader = await self._blobs.open(self._name, self._digest, position, end - position)
        try:
            async for data in reader:
                yield data
        finally:
            await reader.close()

    async def _uploaded(self, position: int, end: int) -> AsyncGenerator[Buffer, None]:
        """What is durable already; nothing once the upload has become a blob, or was discarded."""
        if self._upload is None or position >= end:
            return
        try:
            reader = await self._store.open(upload_path(self._upload.upload_id), position, end - position)
        except NotFound:
            return
        try:
            async for data in reader:
                yield data
        except NotFound:
            return
        finally:
            await reader.close()


class TransferReader:
    """Reads a part of a blob under way, as an ``ObjectReader`` reads one that is here."""

    def __init__(self, transfer: Transfer, start: int, end: int) -> None:
        self._pieces = transfer.pieces(start, end)

    def __aiter__(self) -> AsyncIterator[Buffer]:
        return self._pieces

    async def close(self) -> None:
        """Stop reading."""
        await self._pieces.aclose()
