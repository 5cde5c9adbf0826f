"""The store of objects over a proxy: ``ObjectStore`` as the registry and ``Storage`` use it."""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import xxhash

from fabric.driver.budget import ByteBudget
from fabric.driver.client import Answer, Client
from fabric.driver.near import NearFiles
from fabric.driver.near_writes import SHARED_BYTES_MIN, NearWrites
from fabric.driver.object_store import Buffer
from fabric.driver.reader import BAD_CHECKSUM_TRIES, Reader
from fabric.driver.splitter import Parts
from fabric.driver.writer import Writer
from fabric.errors import BadChecksum, BadRequest, MemoryGone
from fabric.settings import FRAGMENT_BYTES_MAX, FRAGMENTS_PER_PAGE_MAX, Settings
from fabric.wire.messages import (
    AnyOperation,
    Changes,
    Commit,
    Committed,
    Found,
    FragmentRef,
    GetObject,
    Listing,
    ListObjects,
    ObjectData,
    ObjectInfo,
    PutFragment,
    PutObject,
    PutOperation,
    Request,
    Stat,
    Stored,
    Watch,
)

_log = logging.getLogger(__name__)


def verified(data: Any, checksum: int, what: str) -> memoryview:
    """The payload's bytes, once more checked end to end.

    Raises BadChecksum, which is not expected ever to happen: replica and proxy have checked before.
    """
    view = memoryview(data)
    if xxhash.xxh3_64_intdigest(view) != checksum:
        raise BadChecksum(f"{what}: the bytes that arrived are not those that were stored")
    return view


class FabricStore:
    """Implements ``ObjectStore``.  Create, then ``await start()`` in a running event loop."""

    def __init__(self, proxy: str, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._client = Client(proxy, self._settings)
        self._near = NearFiles(self._settings.near_reads)
        self._near_writes = NearWrites(self._settings.near_writes)
        self._write_budget = ByteBudget(self._settings.client_inflight_bytes_max)
        self._read_budget = ByteBudget(self._settings.client_inflight_bytes_max)
        self._name = secrets.token_bytes(8)
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Begin to connect to the proxy."""
        await self._client.start()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()
        self._near.close()
        self._near_writes.close()

    async def stat(self, path: str) -> ObjectInfo:
        """What is at ``path``.  Raises NotFound."""
        answer, _ = await self._client.request(Found, Stat(0, path))
        return answer.info

    async def open(self, path: str, offset: int = 0, length: int | None = None) -> Reader:
        """Open for reading; the first bytes come with the answer.  Raises NotFound, BadRange."""
        wanted = 2**62 if length is None else length
        return self._reader(*await self._open(GetObject(0, path, offset, wanted, self._near.host)), wanted)

    def _reader(self, opened: ObjectData, first: memoryview, wanted: int) -> Reader:
        end = min(opened.info.size, opened.offset + wanted)
        return Reader(self._client, self._near, self._settings, self._read_budget, opened, first, end)

    async def _open(self, request: GetObject) -> tuple[ObjectData, memoryview]:
        tries_left = BAD_CHECKSUM_TRIES
        while True:
            answer, data = await self._client.request(ObjectData, request)
            if answer.file:
                near = await self._read_near(answer, request.length)
                if near is not None:
                    return answer, near
                request = msgspec.structs.replace(request, near="", missed=True)
                continue
            try:
                return answer, verified(data, answer.checksum, request.path)
            except BadChecksum:
                tries_left -= 1
                if not tries_left:
                    raise

    async def _read_near(self, opened: ObjectData, length: int) -> memoryview | None:
        """The bytes from ``opened.offset`` to the end of their fragment, or ``length`` of them."""
        start = opened.start
        for fragment in opened.fragments:
            inside = opened.offset - start
            if inside < fragment.length:
                data = await self._near.read(opened.file, opened.position, fragment.length, fragment.checksum)
                return None if data is None else data[inside : inside + length]
            start += fragment.length
        return None

    async def read(self, path: str, bytes_max: int) -> tuple[ObjectInfo, bytes]:
        """A whole small object.  Raises NotFound; BadRequest when it has more than ``bytes_max``."""
        wanted = 2**62
        opened, first = await self._open(GetObject(0, path, 0, wanted, self._near.host))
        if opened.info.size > bytes_max:
            raise BadRequest(f"{path} has {opened.info.size} bytes, {bytes_max} are taken at most")
        if len(first) == opened.info.size:
            return opened.info, bytes(first)
        reader = self._reader(opened, first, wanted)
        try:
            return opened.info, b"".join([piece async for piece in reader])
        finally:
            await reader.close()

    async def put(
        self,
        path: str,
        data: Buffer,
        *,
        digest: str = "",
        attributes: Mapping[str, str] | None = None,
        if_generation: int = -1,
        immutable: bool = False,
    ) -> ObjectInfo:
        """Create or replace an object whole, in one round trip when it is one fragment."""
        if len(data) > FRAGMENT_BYTES_MAX:
            fragments = await self.stage(data)
            operation = PutOperation(
                path, fragments, digest, dict(attributes or {}), if_generation, immutable
            )
            return _only(await self.commit([operation]))
        request = PutObject(
            deadline_ms=0,
            operation_id=self._operation_id(),
            path=path,
            checksum=xxhash.xxh3_64_intdigest(data),
            digest=digest,
            attributes=dict(attributes or {}),
            if_generation=if_generation,
            immutable=immutable,
        )
        await self._write_budget.acquire(len(data))
        try:
            answer = await self._send(Committed, request, [memoryview(data)], len(data))
        finally:
            self._write_budget.release(len(data))
        return _only(answer.results)

    def writer(self, path: str, size: int) -> Writer:
        """Append to an existing object that has ``size`` bytes now."""
        return Writer(self.store_fragment, self.commit, path, size, self._settings.client_window_bytes)

    async def stage(self, data: Buffer) -> list[FragmentRef]:
        """Store bytes on all replicas without a name, at most one page of fragments.

        Raises BadRequest for more than that.
        """
        view = memoryview(data)
        if len(view) > FRAGMENT_BYTES_MAX * FRAGMENTS_PER_PAGE_MAX:
            raise BadRequest(f"{len(view)} bytes do not fit one page of fragments; use a writer")
        return [
            await self.store_fragment([view[start : start + FRAGMENT_BYTES_MAX]])
            for start in range(0, len(view), FRAGMENT_BYTES_MAX)
        ]

    async def store_fragment(self, parts: Parts) -> FragmentRef:
        """One fragment on every replica of some group."""
        size = sum(map(len, parts))
        await self._write_budget.acquire(size)
        try:
            answer = await self._send(Stored, PutFragment(0, _checksum(parts)), parts, size)
        finally:
            self._write_budget.release(size)
        return answer.fragment

    async def _send(self, kind: type[Answer], request: Request, parts: Parts, size: int) -> Answer:
        """Ask with these bytes as payload; where the proxy can read them in our memory, they stay there."""
        if size >= SHARED_BYTES_MIN and self._client.proxy_reads_memory():
            with self._near_writes.holding(parts) as payload:
                if payload is not None:
                    try:
                        return (await self._client.request(kind, request, payload))[0]
                    except MemoryGone as error:
                        _log.warning("the memory of this process is not read, so bytes are sent: %s", error)
                        self._near_writes.rest()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return (await self._client.request(kind, request, data))[0]

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        """All operations or none, durably.  Raises Precondition or NotFound with nothing changed."""
        request = Commit(0, self._operation_id(), list(operations))
        answer, _ = await self._client.request(Committed, request)
        return answer.results

    def _operation_id(self) -> bytes:
        """Unique.  Those of one store grow: the master keeps neighbours beside each other."""
        return self._name + next(self._numbers).to_bytes(8, "big")

    async def watch(self, message: Watch) -> Changes:
        """What has changed since the last answer; waits a while for something.  Raises FabricError."""
        answer, _ = await self._client.request(Changes, message, patience_s=self._settings.name_lease_s)
        return answer

    async def list(self, prefix: str, *, delimiter: str = "", after: str = "", limit: int = 1000) -> Listing:
        """One page of names; see ``fabric.wire.messages.ListObjects``."""
        answer, _ = await self._client.request(Listing, ListObjects(0, prefix, delimiter, after, limit))
        return answer


def _checksum(parts: Parts) -> int:
    if len(parts) == 1:
        return xxhash.xxh3_64_intdigest(parts[0])
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part)
    return state.intdigest()


def _only(results: Sequence[ObjectInfo | None]) -> ObjectInfo:
    (info,) = results
    assert info is not None
    return info
