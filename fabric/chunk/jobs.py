"""What the role asks of the engine, and what comes back: the jobs and events of the two lanes.

``token`` belongs to the asker; the engine hands it back untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fabric.errors import FabricError
from fabric.wire.messages import BucketEntry

if TYPE_CHECKING:
    from typing import TypeAlias

BATCH_BYTES_MAX = 32 * 1024 * 1024
"""Payload bytes of one ``WriteBatch``.  Recovery relies on it: a torn write reaches no further."""
BATCH_ITEMS_MAX = 512


class Status(msgspec.Struct, frozen=True):
    """How the engine is, for heartbeats."""

    fragments: int = 0
    live_bytes: int = 0
    free_bytes: int = 0
    """What fragments may still take: the reserve is not in it."""
    capacity_bytes: int = 0
    quarantined: int = 0
    """Fragments whose record here was found damaged and is not repaired yet."""
    mutations: int = 0
    """Changes with every change of the set of live fragments."""
    read_only_reason: str = ""
    """Why no fragment can be stored; empty when it can."""


# --- lane "write": one thread --------------------------------------------------------------------


class StoreItem(msgspec.Struct, frozen=True):
    """Store a fragment.  Errors: BadChecksum, Conflict, NoSpace, DiskFailed."""

    token: Any
    fid: int
    group: int
    epoch: int
    checksum: int
    payload: Any


class DeleteItem(msgspec.Struct, frozen=True):
    """Write a tombstone for a fid, stored before or not.  Errors: NoSpace, DiskFailed."""

    token: Any
    fid: int
    group: int
    epoch: int


WriteItem: TypeAlias = "StoreItem | DeleteItem"


class WriteBatch(msgspec.Struct, frozen=True):
    """Items that share one write and one sync; each succeeds or fails on its own."""

    items: list[WriteItem]


class Outcome(msgspec.Struct, frozen=True):
    """``error`` is None: it is on stable storage and in the index."""

    token: Any
    error: FabricError | None = None


class WriteDone(msgspec.Struct, frozen=True):
    """One outcome for each item of the batch, in its order."""

    outcomes: list[Outcome]
    status: Status


# --- lane "read": any number of threads ----------------------------------------------------------


class ReadItem(msgspec.Struct, frozen=True):
    """``length`` bytes from ``offset``.  Errors: NoFragment, BadRange, BadChecksum, DiskFailed."""

    token: Any
    fid: int
    offset: int
    length: int


class ReadBatch(msgspec.Struct, frozen=True):
    """Some reads, done one behind the other."""

    items: list[ReadItem]


class ReadResult(msgspec.Struct, frozen=True):
    """The bytes and their checksum, or an error."""

    token: Any
    payload: Any = None
    checksum: int = 0
    error: FabricError | None = None
    damaged: BucketEntry | None = None
    """Set when this server should hold the fragment, and its copy is bad: what a good copy is."""


class ReadDone(msgspec.Struct, frozen=True):
    """One result for each item."""

    results: list[ReadResult]


class DigestJob(msgspec.Struct, frozen=True):
    """The digests of all buckets."""

    token: Any


class DigestsDone(msgspec.Struct, frozen=True):
    """16 bytes a bucket, and over all of them; ``mutations`` as in ``Status``."""

    token: Any
    digests: list[bytes]
    overall: bytes
    mutations: int


class ListJob(msgspec.Struct, frozen=True):
    """Up to ``limit`` live fragments of a bucket, by fid, above ``after`` (0: from the first)."""

    token: Any
    bucket: int
    after: int
    limit: int


class ListDone(msgspec.Struct, frozen=True):
    """A page; ``more``: another follows."""

    token: Any
    entries: list[BucketEntry]
    more: bool
    error: FabricError | None = None


class CompareJob(msgspec.Struct, frozen=True):
    """Which of these fragments, that a peer holds, does this server not hold?"""

    token: Any
    entries: list[BucketEntry]


class CompareDone(msgspec.Struct, frozen=True):
    """What the peer has and this server has not."""

    token: Any
    missing: list[BucketEntry]
    dead: list[int]
    """Deleted here, and so for ever: the peer has missed the deletion."""
    conflicting: list[int]
    """Here with other bytes: cannot be, and is counted."""
    error: FabricError | None = None


class StatusJob(msgspec.Struct, frozen=True):
    """How are you?"""


class StatusDone(msgspec.Struct, frozen=True):
    """So."""

    status: Status


Event: TypeAlias = "WriteDone | ReadDone | DigestsDone | ListDone | CompareDone | StatusDone"
