"""What the registry and ``Storage`` need of a store of objects: the contract, without any I/O.

``fabric.driver.fabric_store`` implements it over ZeroMQ; tests have one in memory.  All coroutines
raise ``fabric.errors.FabricError`` or its kin and nothing else for what goes wrong in the store:
``NotFound``, ``Precondition``, ``NoWritableGroup``, ``Busy``, ``Unavailable``, ``NoGoodCopy``, …
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from fabric.wire.messages import AnyOperation, FragmentRef, Listing, ObjectInfo

Buffer = bytes | bytearray | memoryview


class Deferred(Protocol):
    """A piece that is not read yet: whoever sends it on reads it in its own thread, and has it at hand."""

    def __len__(self) -> int: ...

    def load(self) -> Buffer | None:
        """The bytes, verified; blocks, in any thread.  None when they are not there any more."""
        ...

    async def otherwise(self) -> Buffer:
        """The bytes, when ``load`` gave none.  Raises FabricError."""
        ...


@runtime_checkable
class Defers(Protocol):
    """A reader that may leave reading to whoever takes its pieces."""

    def deferred(self) -> AsyncGenerator[Buffer | Deferred, None]:
        """As iterating over the reader; instead of that, once."""
        ...


class ObjectReader(Protocol):
    """An open object, read from some offset on."""

    info: ObjectInfo

    def __aiter__(self) -> AsyncIterator[Buffer]:
        """The bytes in order, in pieces of at most one fragment, verified.  Read ahead by a window."""
        ...

    async def close(self) -> None:
        """Give up reads under way; harmless when called twice or at the end."""
        ...


class ObjectWriter(Protocol):
    """Appends to one object; bytes become part of it by ``flush``."""

    size: int
    """Bytes written so far, those before this writer included."""

    async def write(self, data: Buffer) -> None:
        """Take bytes; waits while the window of fragments in flight is full.

        The caller must not change ``data`` afterwards.
        """
        ...

    async def flush(self) -> int:
        """Store and attach everything written; returns the object's durable size.

        Precondition: somebody else appended meanwhile, and nothing of this writer's unflushed bytes
        is part of the object.
        """
        ...

    async def abort(self) -> None:
        """Forget what was not attached; harmless when called twice or after ``flush``."""
        ...


class ObjectStore(Protocol):
    """Named objects."""

    async def stat(self, path: str) -> ObjectInfo:
        """What is at ``path``.  Raises NotFound."""
        ...

    async def open(self, path: str, offset: int = 0, length: int | None = None) -> ObjectReader:
        """Open for reading ``length`` bytes from ``offset`` (None: to the end).

        Raises NotFound; BadRange when ``offset`` is beyond the size.  A length beyond the end is cut.
        """
        ...

    async def read(self, path: str, bytes_max: int) -> tuple[ObjectInfo, bytes]:
        """A whole small object.  Raises NotFound; BadRequest when it has more than ``bytes_max``."""
        ...

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
        """Create or replace an object whole.  Raises Precondition when ``if_generation`` does not hold."""
        ...

    def writer(self, path: str, size: int) -> ObjectWriter:
        """Append to an existing object that has ``size`` bytes now."""
        ...

    async def stage(self, data: Buffer) -> Sequence[FragmentRef]:
        """Store bytes on all replicas without a name; the fragments for a ``PutOperation``.

        At most one page of fragments.  What no commit names is freed later.
        """
        ...

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        """Do all operations or none, durably; retried safely under one operation id.

        Raises Precondition or NotFound, naming the path, with nothing changed.
        """
        ...

    async def list(self, prefix: str, *, delimiter: str = "", after: str = "", limit: int = 1000) -> Listing:
        """One page of names; see ``fabric.wire.messages.ListObjects``."""
        ...
