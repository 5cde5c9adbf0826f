"""What the role asks of the engine, and what comes back: the jobs and events of the two lanes.

``token`` belongs to the asker; the engine hands it back untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fabric.errors import FabricError
from fabric.wire.messages import BucketEntry, DiskCheck, FragmentRef

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
    files: int = 0
    """Data files."""
    data_bytes: int = 0
    """Of records in all data files, dead ones included."""
    garbage_bytes: int = 0
    """Of ``data_bytes``, what compaction would give back."""
    restart_reason: str = ""
    """Set when only a new start helps (the index is damaged and will be rebuilt): end the process."""


# --- lane "write": one thread --------------------------------------------------------------------


class StoreItem(msgspec.Struct, frozen=True):
    """Store a fragment.  Errors: BadChecksum, Conflict, NoSpace, DiskFailed, MemoryGone."""

    token: Any
    fid: int
    group: int
    epoch: int
    checksum: int
    payload: Any
    stays_warm: bool = True
    """Its bytes stay in memory when they are on the disk."""


class StoreSeveral(msgspec.Struct, frozen=True):
    """Store fragments that came together, each by itself.  Their bytes stay in memory: they are small."""

    token: Any
    group: int
    epoch: int
    fragments: Sequence[FragmentRef]
    payload: memoryview
    """Their bytes, one behind the other."""

    def singly(self) -> Iterator[StoreItem]:
        """An item for each of them, in order; its token is None."""
        end = 0
        for fragment in self.fragments:
            start, end = end, end + fragment.length
            yield StoreItem(
                None, fragment.fid, self.group, self.epoch, fragment.checksum, self.payload[start:end]
            )


class DeleteItem(msgspec.Struct, frozen=True):
    """Write a tombstone for a fid, stored before or not.  Errors: NoSpace, DiskFailed."""

    token: Any
    fid: int
    group: int
    epoch: int


SingleItem: TypeAlias = "StoreItem | DeleteItem"
WriteItem: TypeAlias = "SingleItem | StoreSeveral"


def count(item: WriteItem) -> int:
    """Fragments and tombstones in an item."""
    return len(item.fragments) if isinstance(item, StoreSeveral) else 1


class WriteBatch(msgspec.Struct, frozen=True):
    """Items that share one write and one sync; each succeeds or fails on its own."""

    items: list[WriteItem]


class Outcome(msgspec.Struct, frozen=True):
    """``error`` is None: it is on stable storage and in the index, but for what is ``refused``."""

    token: Any
    error: FabricError | None = None
    refused: Mapping[int, FabricError] = {}
    """Of ``StoreSeveral``: positions of fragments that are not stored, and why."""


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
    place_only: bool = False
    """Only say where it is; nothing is read or verified."""


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
    file: str = ""
    """Name of the file that the payload is in, when only its place was wanted."""
    position: int = 0
    near_bytes: int = 0
    """What the asker reads there by itself."""


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


# --- lane "background": one thread, whose jobs are slices of work that can wait -----------------------


class ScrubStatus(msgspec.Struct, frozen=True):
    """How far the scrub is: it reads every record, and keeps its place across restarts."""

    passes: int = 0
    """Finished ones."""
    running: bool = False
    progress: float = 0.0
    """Of the pass under way or, when none is, of the last one: 0 to 1."""
    started_at_ms: int = 0
    """Wall clock, milliseconds since 1970; 0: never."""
    finished_at_ms: int = 0
    """End of the last finished pass; 0: never."""
    records: int = 0
    """Read in this pass (or the last one)."""
    read_bytes: int = 0
    damaged: int = 0
    """Found in this pass (or the last one)."""


class ScrubJob(msgspec.Struct, frozen=True):
    """Read and verify the next records, about ``bytes_max`` of them.

    A new pass begins when the last began ``scrub_interval_s`` ago, or at once with ``anew``.
    """

    bytes_max: int
    anew: bool = False


class ScrubDone(msgspec.Struct, frozen=True):
    """``idle``: no pass is under way, nothing was done."""

    scrub: ScrubStatus
    status: Status
    cost_bytes: int = 0
    """What to charge against the bandwidth: bytes, and something for each record."""
    idle: bool = False
    damaged: list[BucketEntry] = msgspec.field(default_factory=list)
    """Fragments that should be here and whose copy is bad: get a good one from a peer."""
    lost_tombstones: list[int] = msgspec.field(default_factory=list)
    """Fids that are deleted here and whose tombstone is damaged: delete them again."""
    follow: ScrubFollow | None = None
    """What must run next; its result is a ``ScrubDone`` without a follow."""


class ScrubFollow(msgspec.Struct, frozen=True):
    """Forget tombstones that nothing needs any more."""

    fids: list[int]
    lane: str = "write"


class CompactionStatus(msgspec.Struct, frozen=True):
    """What compaction is doing, and has done since the start."""

    running: bool = False
    files: list[int] = msgspec.field(default_factory=list)
    """Numbers of the data files that are being compacted."""
    progress: float = 0.0
    """Of their bytes read: 0 to 1."""
    freed_bytes: int = 0
    """Given back since the start of this process."""
    finished: int = 0
    """Compactions since the start of this process."""
    problem: str = ""
    """Why the last one was given up; empty when it was not."""


class CompactJob(msgspec.Struct, frozen=True):
    """Copy the next live records, about ``bytes_max`` of them; choose what to compact if nothing is.

    ``all_garbage``: take every file with garbage, the one being written to too, not only those
    above ``compaction_garbage_ratio``.
    """

    bytes_max: int
    all_garbage: bool = False


class CompactDone(msgspec.Struct, frozen=True):
    """``follow``: what must run next, on its lane; None: another ``CompactJob``, when there is bandwidth."""

    compaction: CompactionStatus
    status: Status
    cost_bytes: int = 0
    idle: bool = False
    """Nothing is worth compacting now."""
    follow: CompactFollow | None = None


class CompactFollow(msgspec.Struct, frozen=True):
    """A step of compaction that is no copying.  ``lane``: "write" or "background"."""

    lane: str
    step: str
    """Between the parts of the engine."""


class CheckDiskJob(msgspec.Struct, frozen=True):
    """Try the disk: write, sync, read back and remove a file."""


class DiskChecked(msgspec.Struct, frozen=True):
    """What came of it; in ``check`` nothing is ``running``."""

    check: DiskCheck
    status: Status


Event: TypeAlias = (
    "ScrubDone | CompactDone | DiskChecked | WriteDone | ReadDone | DigestsDone | ListDone | CompareDone"
    " | StatusDone"
)
