"""What the master needs of a durable store: the contract, and the jobs that go to its lane.

An ordered map of bytes to bytes with atomic durable batches, and nothing more, so that an embedded
store and a distributed one can both keep it.  Keys sort as bytes.  Reads see only batches whose
``write`` has returned, or is about to: never a part of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import msgspec

Changes: TypeAlias = Mapping[bytes, bytes | None]
"""A batch: key -> new value, or None to remove the key."""

Pair: TypeAlias = tuple[bytes, bytes]


class StoreError(Exception):
    """The store cannot do its duty; the master must not go on."""


class StoreDamaged(StoreError):
    """What was stored cannot be read back as it was written."""


class StoreInUse(StoreError):
    """Another process has the store open."""


class StoreFailed(StoreError):
    """The operating system refused a read or a write."""


class Reader(Protocol):
    """The reading half; also kept by ``DeltaStore``."""

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``; None when it has none.  Raises StoreError."""
        ...

    def scan(self, start: bytes, stop: bytes, limit: int, reverse: bool = False) -> list[Pair]:
        """At most ``limit`` pairs with start <= key < stop, in order; from the end when ``reverse``.

        Raises StoreError.
        """
        ...


class Store(Reader, Protocol):
    """The whole contract.  One thread may write while another reads."""

    def write(self, changes: Changes) -> None:
        """Make all changes at once; they are on stable storage when this returns.

        Raises StoreError, and then whether the changes were made is unknown.
        """
        ...


class WriteBatch(msgspec.Struct, frozen=True):
    """Job of the lane "store"."""

    changes: dict[bytes, bytes | None]


class Written(msgspec.Struct, frozen=True):
    """Result of a ``WriteBatch``; ``error`` is empty when the batch is durable."""

    error: str = ""


def store_worker(store: Store) -> Callable[[object], object]:
    """What the lane "store" runs: one ``WriteBatch`` after the other."""

    def run(job: object) -> Written:
        assert isinstance(job, WriteBatch)
        try:
            store.write(job.changes)
        except StoreError as error:
            return Written(str(error) or type(error).__name__)
        return Written()

    return run
