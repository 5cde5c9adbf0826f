"""An ``ObjectStore`` in memory, with the rules of the catalog and failures on request.

A commit works on a copy and swaps it in at the end, so it is atomic by construction.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fabric.driver.object_store import Buffer
from fabric.errors import BadRange, BadRequest, FabricError, NotFound, Precondition
from fabric.settings import FRAGMENT_BYTES_MAX, OPERATIONS_MAX
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    CheckOperation,
    DeleteOperation,
    FragmentRef,
    JoinOperation,
    Listing,
    MoveOperation,
    ObjectInfo,
    PutOperation,
)


@dataclass(frozen=True)
class Entry:
    fragments: tuple[FragmentRef, ...]
    generation: int
    object_id: int
    digest: str = ""
    attributes: Mapping[str, str] | None = None
    immutable: bool = False
    created_at_ms: int = 0

    @property
    def size(self) -> int:
        return sum(fragment.length for fragment in self.fragments)


class MemoryReader:
    def __init__(self, store: MemoryStore, info: ObjectInfo, data: Sequence[memoryview]) -> None:
        self.info = info
        self.closed = False
        self._store = store
        self._data = data

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        for piece in self._data:
            self._store.hit("read")
            await asyncio.sleep(0)
            yield piece

    async def close(self) -> None:
        self.closed = True


class MemoryWriter:
    def __init__(self, store: MemoryStore, path: str, size: int) -> None:
        self.size = size
        self._store = store
        self._path = path
        self._start = size
        self._pieces: list[bytes] = []

    async def write(self, data: Buffer) -> None:
        self._store.hit("write")
        await asyncio.sleep(0)
        self._pieces.append(bytes(data))
        self.size += len(data)

    async def flush(self) -> int:
        self._store.hit("flush")
        fragments = await self._store.stage(b"".join(self._pieces))
        self._pieces = []
        self._store.run([AppendOperation(self._path, list(fragments), self._start)])
        self._start = self.size
        return self.size

    async def abort(self) -> None:
        self._pieces = []


class MemoryStore:
    """``fail(step, error)`` makes a later call of ``step``, such as "commit", raise it."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.calls: Counter[str] = Counter()
        self.commits: list[list[AnyOperation]] = []
        self.now_ms = 0
        """The master's wall clock."""
        self._bytes: dict[int, bytes] = {}
        self._failures: dict[str, list[FabricError | None]] = {}
        self._counter = 0

    # --- for tests --------------------------------------------------------------------------------

    def fail(self, step: str, error: FabricError, *, after: int = 0, times: int = 1) -> None:
        """Let ``after`` calls of ``step`` pass, then raise ``times`` times."""
        self._failures[step] = [None] * after + [error] * times

    def hit(self, step: str) -> None:
        self.calls[step] += 1
        pending = self._failures.get(step)
        if pending:
            error = pending.pop(0)
            if error is not None:
                raise error

    def paths(self, prefix: str = "") -> list[str]:
        return sorted(path for path in self.entries if path.startswith(prefix))

    def content(self, path: str) -> bytes:
        return b"".join(self._bytes[fragment.fid] for fragment in self.entries[path].fragments)

    # --- ObjectStore ------------------------------------------------------------------------------

    async def stat(self, path: str) -> ObjectInfo:
        self.hit("stat")
        await asyncio.sleep(0)
        return self._info(path)

    async def open(self, path: str, offset: int = 0, length: int | None = None) -> MemoryReader:
        self.hit("open")
        await asyncio.sleep(0)
        info = self._info(path)
        if offset > info.size:
            raise BadRange(f"{offset} is beyond {info.size}")
        end = info.size if length is None else min(info.size, offset + length)
        return MemoryReader(self, info, self._slices(path, offset, end))

    async def read(self, path: str, bytes_max: int) -> tuple[ObjectInfo, bytes]:
        reader = await self.open(path)
        if reader.info.size > bytes_max:
            raise BadRequest("too large")
        return reader.info, b"".join([piece async for piece in reader])

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
        self.hit("put")
        fragments = list(await self.stage(data))
        operation = PutOperation(path, fragments, digest, dict(attributes or {}), if_generation, immutable)
        (info,) = self.run([operation])
        assert info is not None
        return info

    def writer(self, path: str, size: int) -> MemoryWriter:
        return MemoryWriter(self, path, size)

    async def stage(self, data: Buffer) -> Sequence[FragmentRef]:
        self.hit("stage")
        await asyncio.sleep(0)
        view = memoryview(data)
        fragments = []
        for start in range(0, len(view), FRAGMENT_BYTES_MAX):
            piece = bytes(view[start : start + FRAGMENT_BYTES_MAX])
            self._counter += 1
            self._bytes[self._counter] = piece
            fragments.append(FragmentRef(group=1, fid=self._counter, length=len(piece), checksum=0))
        return fragments

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        await asyncio.sleep(0)
        self.hit("commit")
        return self.run(operations)

    async def list(self, prefix: str, *, delimiter: str = "", after: str = "", limit: int = 1000) -> Listing:
        self.hit("list")
        await asyncio.sleep(0)
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = ""
        for path in sorted(self.entries, key=str.encode):
            if not path.startswith(prefix) or path <= after or (last and path.startswith(last)):
                continue
            head, found, _ = path.removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
            folded = prefix + head + delimiter if found else ""
            if folded and after.startswith(folded):
                continue
            if len(objects) + len(prefixes) == limit:
                return Listing(objects, prefixes, max([info.path for info in objects[-1:]] + prefixes[-1:]))
            if folded:
                prefixes.append(folded)
                last = folded
            else:
                objects.append(self._info(path))
        return Listing(objects, prefixes, "")

    # --- the catalog's rules ----------------------------------------------------------------------

    def run(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        assert 1 <= len(operations) <= OPERATIONS_MAX, "a commit has a bounded number of operations"
        self.commits.append(list(operations))
        before = dict(self.entries)
        try:
            return [self._step(operation) for operation in operations]
        except FabricError:
            self.entries = before
            raise

    def _step(self, operation: AnyOperation) -> ObjectInfo | None:
        match operation:
            case PutOperation():
                self._check(operation.path, operation.if_generation)
                self._counter += 1
                entry = Entry(
                    tuple(operation.fragments), self._counter, self._counter, operation.digest,
                    dict(operation.attributes), operation.immutable, self.now_ms,
                )  # fmt: skip
                return self._write(operation.path, entry)
            case AppendOperation():
                entry = self._entry(operation.path)
                if entry.immutable:
                    raise BadRequest(f"{operation.path} is immutable")
                if entry.size != operation.expected_size:
                    raise Precondition(f"{operation.path} has {entry.size} bytes")
                self._counter += 1
                grown = (*entry.fragments, *operation.fragments)
                attributes = {**(entry.attributes or {}), **operation.attributes}
                appended = replace(entry, fragments=grown, generation=self._counter, attributes=attributes)
                return self._write(operation.path, appended)
            case JoinOperation():
                entry, part = self._entry(operation.path), self._entry(operation.source)
                if entry.immutable or part.immutable or operation.path == operation.source:
                    raise BadRequest(f"{operation.source} cannot be joined to {operation.path}")
                if entry.size != operation.expected_size:
                    raise Precondition(f"{operation.path} has {entry.size} bytes")
                del self.entries[operation.source]
                self._counter += 1
                joined = (*entry.fragments, *part.fragments)
                return self._write(operation.path, replace(entry, fragments=joined, generation=self._counter))
            case MoveOperation():
                entry = self._entry(operation.source)
                self._check(operation.target, operation.if_generation)
                del self.entries[operation.source]
                self._counter += 1
                attributes = operation.attributes if operation.replace_attributes else entry.attributes
                moved = replace(
                    entry, generation=self._counter, digest=operation.digest or entry.digest,
                    attributes=attributes, immutable=operation.immutable,
                )  # fmt: skip
                return self._write(operation.target, moved)
            case DeleteOperation():
                if operation.path not in self.entries:
                    if operation.missing_ok or operation.if_generation == 0:
                        return None
                    raise NotFound(operation.path)
                self._check(operation.path, operation.if_generation)
                del self.entries[operation.path]
                return None
            case CheckOperation():
                if operation.generation == -1 and operation.path not in self.entries:
                    raise Precondition(f"{operation.path} does not exist")
                self._check(operation.path, operation.generation)
                return None

    def _check(self, path: str, wanted: int) -> None:
        found = self.entries[path].generation if path in self.entries else 0
        if wanted not in (-1, found):
            raise Precondition(f"{path} is at generation {found}, not {wanted}")

    def _write(self, path: str, entry: Entry) -> ObjectInfo:
        assert ".." not in path.split("/") and "" not in path.split("/"), path
        assert len(entry.attributes or {}) <= 16
        self.entries[path] = entry
        return self._info(path)

    def _entry(self, path: str) -> Entry:
        if path not in self.entries:
            raise NotFound(f"no object at {path}")
        return self.entries[path]

    def _info(self, path: str) -> ObjectInfo:
        entry = self._entry(path)
        return ObjectInfo(
            path, entry.size, entry.generation, entry.object_id, entry.digest, entry.created_at_ms,
            dict(entry.attributes or {}), entry.immutable,
        )  # fmt: skip

    def _slices(self, path: str, start: int, end: int) -> list[memoryview]:
        pieces, position = [], 0
        for fragment in self.entries[path].fragments:
            low, high = max(start, position), min(end, position + fragment.length)
            if low < high:
                pieces.append(memoryview(self._bytes[fragment.fid])[low - position : high - position])
            position += fragment.length
        return pieces
