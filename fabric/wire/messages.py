"""Every message of the fabric, typed.

On the wire a message is one MessagePack array ``[kind, field, field, …]`` in the order written
here.  A ``Request`` has ``deadline_ms`` as its first field: the milliseconds that its sender will
still wait.  Payload bytes (a fragment) travel in a frame of their own, never inside MessagePack.

Kinds are numbers and never change; new fields go to the end and have a default.
``docs/wire.md`` describes every conversation.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

import msgspec
from msgspec import Meta

from fabric.settings import (
    BUCKETS,
    FRAGMENT_BYTES_MAX,
    FRAGMENTS_PER_PAGE_MAX,
    LIST_LIMIT_MAX,
    OPERATIONS_MAX,
    PATH_BYTES_MAX,
)

Natural = Annotated[int, Meta(ge=0)]
"""0 to 2**64 - 1."""
Length = Annotated[int, Meta(ge=0, le=FRAGMENT_BYTES_MAX)]
Size = Annotated[int, Meta(ge=0, le=2**62)]
Path = Annotated[str, Meta(min_length=1, max_length=PATH_BYTES_MAX)]
Prefix = Annotated[str, Meta(max_length=PATH_BYTES_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=4096)]
Share = Annotated[float, Meta(ge=0, le=1)]
Attributes = Annotated[dict[Annotated[str, Meta(max_length=64)], Text], Meta(max_length=16)]
OperationId = Annotated[bytes, Meta(min_length=16, max_length=16)]


class Part(msgspec.Struct, array_like=True, frozen=True):
    """A value inside messages; has no kind of its own."""


class Message(msgspec.Struct, array_like=True, frozen=True):
    """Anything that travels in a header frame."""


class Request(Message, frozen=True):
    """A message that must be answered, by its reply or by ``Failed``."""

    deadline_ms: Natural
    """Milliseconds that the sender will still wait, counted from sending."""


# --- values -------------------------------------------------------------------------------------


class FragmentRef(Part, frozen=True):
    """Where a fragment lies, and what its bytes hash to (xxh3-64)."""

    group: Natural
    fid: Natural
    length: Length
    checksum: Natural


FragmentPage = Annotated[list[FragmentRef], Meta(max_length=FRAGMENTS_PER_PAGE_MAX)]


class ObjectInfo(Part, frozen=True):
    """What the catalog knows of an object, without its fragments."""

    path: str
    size: Size
    generation: Natural
    """Unique per commit and growing: 1 or more."""
    object_id: Natural
    """Names this object's bytes; a move keeps it, a replacement gets a new one."""
    digest: str
    """What the writer declared, such as ``sha256:…``; empty if nothing."""
    created_at_ms: Natural
    """Wall clock, milliseconds since 1970, for people only."""
    attributes: dict[str, str]
    immutable: bool


class Member(Part, frozen=True):
    """One replica of a group and where it listens."""

    server: Name
    endpoint: Text


class NodeView(Part, frozen=True):
    """A chunk server as clients of the cluster need to see it."""

    server: Name
    endpoint: Text
    group: Natural
    state: str
    """INIT, SYNCING, RW, RO or OFFLINE."""


class GroupView(Part, frozen=True):
    """A group as clients of the cluster need to see it."""

    group: Natural
    epoch: Natural
    writable: bool
    free_bytes: Natural
    """Of its fullest member."""
    members: list[Name]


class BucketEntry(Part, frozen=True):
    """One live fragment, for comparing replicas."""

    fid: Natural
    length: Length
    checksum: Natural


class FragmentRefusal(Part, frozen=True):
    """Why one of several fragments was not stored."""

    fid: Natural
    code: str
    message: str


class NodeStatus(Part, frozen=True):
    """A chunk server as the operator sees it."""

    server: Name
    uuid: str
    endpoint: Text
    group: Natural
    epoch: Natural
    state: str
    reason: str
    """Why it is in this state; empty when RW."""
    wanted: str
    """What the operator set: ``rw`` or ``ro``."""
    fragments: Natural
    live_bytes: Natural
    free_bytes: Natural
    capacity_bytes: Natural
    pending_bytes: Natural
    seen_ms_ago: Natural
    """Milliseconds since its last heartbeat; 0 when it was never seen since the master's start."""
    pending_deletes: Natural
    quarantined: Natural = 0
    """Fragments whose copy there is damaged and not repaired yet."""
    garbage_bytes: Natural = 0
    """What compaction would give back."""
    audit: Share = 0.0
    """How far it has compared its fragments with the catalog, in the audit that was asked for last."""


class ScrubDetails(Part, frozen=True):
    """How far a chunk server's scrub is."""

    running: bool
    ordered: bool
    """A pass was asked for and has not begun."""
    progress: Share
    """Of the pass under way or, when none is, of the last one."""
    passes: Natural
    """Finished ones."""
    started_at_ms: Natural
    """Wall clock, milliseconds since 1970; 0: never."""
    finished_at_ms: Natural
    records: Natural
    """Read in this pass (or the last one)."""
    read_bytes: Natural
    damaged: Natural
    """Found in this pass (or the last one)."""


class CompactionDetails(Part, frozen=True):
    """What a chunk server's compaction does, and has done since its start."""

    running: bool
    ordered: bool
    """It was asked for, and is not done."""
    progress: Share
    """Of the files that it is at."""
    files: Annotated[list[Natural], Meta(max_length=10_000)]
    """Numbers of the data files that it is at; of very many, the first."""
    finished: Natural
    freed_bytes: Natural
    problem: Text
    """Why the last one was given up; empty when it was not."""


class DiskCheck(Part, frozen=True):
    """A trial of a chunk server's data directory: a file written, synced, read back, removed."""

    running: bool = False
    checked_at_ms: Natural = 0
    """Wall clock, milliseconds since 1970; 0: never since its start."""
    problem: Text = ""
    """What went wrong; empty when nothing did."""
    bytes: Natural = 0
    write_us: Natural = 0
    sync_us: Natural = 0
    read_us: Natural = 0


class GroupStatus(Part, frozen=True):
    """A group as the operator sees it."""

    group: Natural
    epoch: Natural
    state: str
    """FORMING (too few members yet), SYNCING, WRITABLE, or SEALED."""
    reason: str
    replicas: Natural
    members: list[Name]
    free_bytes: Natural
    live_bytes: Natural
    fragments: Natural
    learners: list[Name] = []
    """Servers that copy what the members hold, to become members."""
    draining: bool = False
    """It takes no new fragments, and those of objects are moved to other groups."""


class TaskStatus(Part, frozen=True):
    """Work that an operator gave to the master."""

    task: Natural
    kind: str
    """As in ``StartTask``."""
    group: Natural
    server: str
    replacement: str
    state: str
    """``running``, ``done``, ``failed`` or ``cancelled``."""
    reason: str
    """What it waits for, or why it ended."""
    started_at_ms: Natural
    """Wall clock, milliseconds since 1970."""
    ended_at_ms: Natural
    """0 while it runs."""
    total: Natural
    """In units of its kind: bytes to move, or parts to compare.  0: not known yet."""
    done: Natural
    unit: str
    """``bytes`` or ``parts``."""
    bytes_per_s: Natural
    """The limit; 0: none."""
    left_ms: int
    """Milliseconds it will still take at the pace it had so far; -1: not known."""


class EventRecord(Part, frozen=True):
    """Something that the master did or noticed, and why."""

    number: Natural
    at_ms: Natural
    """Wall clock, milliseconds since 1970."""
    kind: str
    """``node``, ``group``, ``task``, ``operator`` or ``master``."""
    subject: str
    """Which: ``chunk-1``, ``group 2``, ``task 3``."""
    text: str


class Move(Part, frozen=True):
    """One fragment that is to lie in another group."""

    fragment: FragmentRef
    target: Natural
    """The group that it is to lie in; 0: any other."""


class Moved(Part, frozen=True):
    """One fragment that lies in two groups now, under two fids."""

    source: FragmentRef
    target: FragmentRef


# --- catalog operations: the parts of one atomic commit ------------------------------------------


class Operation(msgspec.Struct, array_like=True, frozen=True):
    """One step of a commit.  All steps hold together or none does."""


class PutOperation(Operation, tag=1, frozen=True):
    """Create or replace an object with these fragments (at most one page; append for more).

    ``if_generation``: -1 no condition, 0 must be absent, n must be at generation n.
    """

    path: Path
    fragments: FragmentPage
    digest: Text = ""
    attributes: Attributes = {}
    if_generation: int = -1
    immutable: bool = False
    """Its bytes at this path never change, so readers may cache them until it is deleted."""


class AppendOperation(Operation, tag=2, frozen=True):
    """Add fragments to the end of an object, whose size must be ``expected_size`` before that.

    The check makes a repeated or a rival append fail as PRECONDITION.  Attributes are merged.
    """

    path: Path
    fragments: FragmentPage
    expected_size: Size
    attributes: Attributes = {}


class MoveOperation(Operation, tag=3, frozen=True):
    """Rename an object; the cost does not depend on its size.

    Replaces what is at ``target``.  ``if_generation`` is a condition on ``target``.  A digest that is
    not empty replaces the old one; attributes replace the old ones when ``replace_attributes``.
    """

    source: Path
    target: Path
    digest: Text = ""
    attributes: Attributes = {}
    replace_attributes: bool = False
    if_generation: int = -1
    immutable: bool = False


class DeleteOperation(Operation, tag=4, frozen=True):
    """Remove an object.  Absent: NOT_FOUND, unless ``missing_ok``."""

    path: Path
    if_generation: int = -1
    missing_ok: bool = False


class CheckOperation(Operation, tag=5, frozen=True):
    """Change nothing; fail the commit as PRECONDITION unless the object is at ``generation``.

    0: it must be absent.  -1: it must exist.
    """

    path: Path
    generation: int


class JoinOperation(Operation, tag=6, frozen=True):
    """Put the fragments of ``source`` at the end of ``path``, and remove ``source``; no byte is copied.

    ``path`` must have ``expected_size`` bytes before that, else PRECONDITION; neither may be immutable.
    A commit joins ``JOINED_FRAGMENTS_MAX`` fragments at most.  ``path`` keeps its attributes and digest.
    A read of ``source`` that is under way may end in NOT_FOUND.
    """

    path: Path
    source: Path
    expected_size: Size


AnyOperation = Union[
    PutOperation, AppendOperation, MoveOperation, DeleteOperation, CheckOperation, JoinOperation
]


# --- any role: 1 to 9 ----------------------------------------------------------------------------


class Failed(Message, tag=1, frozen=True):
    """The answer to a request that was refused or could not be done.  Codes: ``fabric.errors``."""

    code: str
    message: str
    retryable: bool


class Ping(Request, tag=2, frozen=True):
    """Are you there?  Any role answers."""


class Pong(Message, tag=3, frozen=True):
    """I am this role, under this name."""

    role: str
    name: str
    version: str


class ProbeMemory(Request, tag=7, frozen=True):
    """Can you read the memory file that I have made?  Any process answers, whatever its role."""

    host: Text
    """The asker's machine, as ``fabric/node/host.py`` names it."""
    file: Text


class MemoryProbed(Message, tag=8, frozen=True):
    """Payloads in the asker's memory files may be named instead of sent."""

    is_visible: bool


# --- chunk server: 10 to 29 ----------------------------------------------------------------------


class StoreFragment(Request, tag=10, frozen=True):
    """Proxy or peer -> chunk server, with the payload: store this fragment durably."""

    group: Natural
    epoch: Natural
    fid: Natural
    checksum: Natural


class FragmentStored(Message, tag=11, frozen=True):
    """The fragment is on this server's stable storage."""

    group: Natural
    epoch: Natural
    fid: Natural
    length: Length
    checksum: Natural


class ReadFragment(Request, tag=12, frozen=True):
    """Proxy or peer -> chunk server: ``length`` bytes of a fragment from ``offset``.

    The whole record is verified first, whatever part of it is wanted.
    """

    group: Natural
    fid: Natural
    offset: Length
    length: Length
    near: Text = ""
    """The machine of whoever wants it: a server on the same one may answer with a place."""


class FragmentData(Message, tag=13, frozen=True):
    """The bytes, in the payload.  ``checksum`` is of the payload as sent.

    Or their place: the payload is empty, and ``checksum`` that of the whole fragment, which lies in
    ``file`` from byte ``position``.  Nobody has verified it.
    """

    fid: Natural
    offset: Length
    checksum: Natural
    file: Text = ""
    position: Natural = 0


class AbortFragment(Request, tag=14, frozen=True):
    """Proxy -> chunk server: this write failed elsewhere; a tombstone for its fid, now and for ever.

    Only the proxy that took the fid from its range sends it, and never after it answered ``Stored``.
    """

    group: Natural
    fid: Natural


class FragmentAborted(Message, tag=15, frozen=True):
    """The fid is dead on this server."""

    fid: Natural


class ListBuckets(Request, tag=16, frozen=True):
    """Peer -> chunk server: a digest of each bucket of your live fragments."""

    group: Natural


class Buckets(Message, tag=17, frozen=True):
    """``digests[b]`` covers the live (fid, length, checksum) whose fid falls in bucket b."""

    group: Natural
    digests: Annotated[list[bytes], Meta(max_length=BUCKETS)]


class ListBucket(Request, tag=18, frozen=True):
    """Peer -> chunk server: the live fragments of one bucket, by fid, after fid ``after``."""

    group: Natural
    bucket: Annotated[int, Meta(ge=0, lt=BUCKETS)]
    after: Natural


class BucketEntries(Message, tag=19, frozen=True):
    """One page of a bucket; ``more`` says that another follows."""

    group: Natural
    bucket: Natural
    entries: Annotated[list[BucketEntry], Meta(max_length=10_000)]
    more: bool


class MaintainChunk(Request, tag=20, frozen=True):
    """Operator -> chunk server: do this, and say how things are.

    ``scrub``: read and verify all records.  ``compact``: give back all garbage.  ``check-disk``: write, sync
    and read a file.  ``kill-pending``: refuse the writes that wait and have not begun.  ``status``: nothing.
    """

    action: Literal["status", "scrub", "compact", "check-disk", "kill-pending"]


class ChunkDetails(Message, tag=21, frozen=True):
    """How a chunk server is."""

    server: Name
    version: str
    incarnation: Natural
    """Random per process start, so that a restart is noticed."""
    group: Natural
    epoch: Natural
    mode: str
    """WAIT, SYNC, RW or RO, as the master wants it."""
    read_only_reason: Text
    fragments: Natural
    live_bytes: Natural
    files: Natural
    """Data files."""
    data_bytes: Natural
    """Of all records, dead ones included."""
    garbage_bytes: Natural
    """Of ``data_bytes``, what compaction would give back."""
    free_bytes: Natural
    capacity_bytes: Natural
    pending_bytes: Natural
    quarantined: Natural
    scrub: ScrubDetails
    compaction: CompactionDetails
    reads: Natural = 0
    """Fragments read for others since its start; the counters below likewise."""
    read_bytes: Natural = 0
    writes: Natural = 0
    """Fragments stored."""
    written_bytes: Natural = 0
    pending_reads: Natural = 0
    pending_writes: Natural = 0
    """Stores and deletions that wait or are under way."""
    oldest_write_ms: Natural = 0
    """For how long the oldest of them has waited."""
    killed: Natural = 0
    """Writes that this request ended."""
    disk: DiskCheck = DiskCheck()


class StoreFragments(Request, tag=22, frozen=True):
    """Proxy -> chunk server, with the payload: store these durably, each by itself.

    They are all of ``group``.  The payload is their bytes, in this order, one behind the other.
    """

    group: Natural
    epoch: Natural
    fragments: FragmentPage


class FragmentsStored(Message, tag=23, frozen=True):
    """Of the fragments of one ``StoreFragments``, those on this server's stable storage; the others not."""

    group: Natural
    epoch: Natural
    stored: FragmentPage
    refused: Annotated[list[FragmentRefusal], Meta(max_length=FRAGMENTS_PER_PAGE_MAX)]


# --- master: 30 to 59 ----------------------------------------------------------------------------


class Heartbeat(Request, tag=30, frozen=True):
    """Chunk server -> master, each second and at every change: I am alive, and this is my state."""

    server: Name
    uuid: Name
    """Of the data directory: the same name on an empty disk has another uuid."""
    incarnation: Natural
    """Random per process start, so that a fast restart is noticed."""
    endpoint: Text
    group: Natural
    """The group it was started for; 0: any."""
    term: Natural
    epoch: Natural
    """What it last adopted from an ``Assignment``; 0 and 0 before the first."""
    synced_digest: bytes
    """Digest over all buckets, sent when it has caught up with all members in this epoch; else empty."""
    read_only_reason: Text
    """Why it can take no writes (disk nearly full, disk failed); empty when it can."""
    fragments: Natural
    live_bytes: Natural
    free_bytes: Natural
    capacity_bytes: Natural
    pending_bytes: Natural
    deleted: Annotated[list[Natural], Meta(max_length=10_000)]
    """Fids of the last assignment's ``deletes`` that now have durable tombstones here."""
    quarantined: Natural = 0
    """Fragments whose copy here is damaged and not repaired yet."""
    garbage_bytes: Natural = 0
    """What compaction would give back."""
    audit: Natural = 0
    """Number of the audit that an ``Assignment`` asked for and that is finished, or under way."""
    audit_progress: Share = 0.0
    """Of that audit; 1: finished."""


class Assignment(Message, tag=31, frozen=True):
    """Master -> chunk server: what you are to be.  The answer to a heartbeat; also sent unasked.

    Unasked it carries request id 0.  Adopting it is idempotent; a lower (term, epoch) is ignored.
    """

    term: Natural
    group: Natural
    epoch: Natural
    mode: str
    """WAIT (group forming or members missing), SYNC (catch up with members), RW or RO."""
    members: list[Member]
    """All members of the group, this server among them."""
    deletes: Annotated[list[Natural], Meta(max_length=10_000)]
    """Fids to delete; repeated until confirmed."""
    lease_ms: Natural
    """From the sending of the heartbeat that this answers, for so long may the server take writes."""
    audit: Natural = 0
    """Compare all fragments with the catalog, if the last audit that was asked for had another number."""


class LeaseFids(Request, tag=32, frozen=True):
    """Proxy -> master: a range of fids to give to fragments."""

    proxy: Name
    count: Annotated[int, Meta(ge=1, le=10_000_000)]


class FidLease(Message, tag=33, frozen=True):
    """Fids ``first`` to ``first + count - 1`` are yours; commits that name them count for ``lease_ms``."""

    first: Natural
    count: Natural
    lease_ms: Natural


class GetTopology(Request, tag=34, frozen=True):
    """Anyone -> master: the whole view."""


class Topology(Message, tag=35, frozen=True):
    """The cluster as it is at (term, sequence).  The answer to ``GetTopology``; also published."""

    term: Natural
    sequence: Natural
    nodes: list[NodeView]
    groups: list[GroupView]
    moving: bool = False
    """There are fragments to be moved: ask with ``TakeMoves``."""


class ReportFailure(Request, tag=36, frozen=True):
    """Proxy -> master: this replica failed me."""

    proxy: Name
    server: Name
    group: Natural
    fid: Natural
    code: Name
    detail: Text


class Noted(Message, tag=37, frozen=True):
    """Heard."""


class AuditFragments(Request, tag=38, frozen=True):
    """Chunk server -> master: the live fragments here of one bucket, by fid, from above fid ``after``.

    Up to the last of them; with ``more`` false, up to the end of the bucket.  Those that nothing names, and
    that no commit can name any more, are put on the to-delete lists of the group's members.
    """

    server: Name
    group: Natural
    bucket: Annotated[int, Meta(ge=0, lt=BUCKETS)]
    after: Natural
    fids: Annotated[list[Natural], Meta(max_length=10_000)]
    more: bool


class Audited(Message, tag=39, frozen=True):
    """What the catalog names in that part of the bucket, and the server did not."""

    missing: list[BucketEntry]
    orphans: Natural
    """How many fragments were put on the to-delete lists."""


class Commit(Request, tag=40, frozen=True):
    """Driver -> proxy -> master: these operations, atomically; the only point of visibility.

    Repeating an ``operation_id`` returns the first answer and changes nothing.
    """

    operation_id: OperationId
    operations: Annotated[list[AnyOperation], Meta(min_length=1, max_length=OPERATIONS_MAX)]


class Committed(Message, tag=41, frozen=True):
    """Durable and visible.  One entry per operation; nil for a delete or a check."""

    results: list[ObjectInfo | None]


class Stat(Request, tag=42, frozen=True):
    """Driver -> proxy -> master: what is at this path?"""

    path: Path


class Found(Message, tag=43, frozen=True):
    """This."""

    info: ObjectInfo


class Open(Request, tag=44, frozen=True):
    """Like ``Stat``, with the page of fragments that contains byte ``offset``."""

    path: Path
    offset: Size


class Opened(Message, tag=45, frozen=True):
    """The object, and fragments from byte ``start``; ``more``: there are further pages."""

    info: ObjectInfo
    start: Size
    fragments: FragmentPage
    more: bool


class ListFragments(Request, tag=46, frozen=True):
    """The page of an object's fragments that contains byte ``offset``."""

    object_id: Natural
    offset: Size


class Fragments(Message, tag=47, frozen=True):
    """Fragments from byte ``start`` on."""

    start: Size
    fragments: FragmentPage
    more: bool


class ListObjects(Request, tag=48, frozen=True):
    """Names that begin with ``prefix`` and sort after ``after``, in UTF-8 byte order.

    With a delimiter, names that contain it behind the prefix are folded into one entry of
    ``prefixes``.  ``limit`` counts objects and prefixes together.
    """

    prefix: Prefix
    delimiter: Annotated[str, Meta(max_length=8)]
    after: Prefix
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)]


class Listing(Message, tag=49, frozen=True):
    """One page.  ``next``: pass it as ``after`` to go on; empty at the end."""

    objects: list[ObjectInfo]
    prefixes: list[str]
    next: str


class CatalogChanged(Message, tag=50, frozen=True):
    """Published: these immutable paths were deleted or replaced at (term, sequence)."""

    term: Natural
    sequence: Natural
    paths: list[str]


class TakeMoves(Request, tag=51, frozen=True):
    """Proxy -> master: I have room to move fragments of so many bytes."""

    proxy: Name
    room_bytes: Natural


class Moves(Message, tag=52, frozen=True):
    """Move these, and say so with ``Relocate`` within ``lease_ms``; ask again after ``pause_ms``."""

    moves: Annotated[list[Move], Meta(max_length=FRAGMENTS_PER_PAGE_MAX)]
    lease_ms: Natural
    pause_ms: Natural


class Relocate(Request, tag=53, frozen=True):
    """Proxy -> master: these fragments now lie in other groups too; let the objects name the new ones.

    Repeating it changes nothing.  The old ones are deleted when readers have had time to finish.
    """

    moved: Annotated[list[Moved], Meta(min_length=1, max_length=FRAGMENTS_PER_PAGE_MAX)]


class Relocated(Message, tag=54, frozen=True):
    """For each: does an object name the new fragment now?  Where not, the new one is nobody's."""

    named: list[bool]


class Watch(Request, tag=55, frozen=True):
    """Registry -> master: I keep copies of names, and have let go of all that changed up to ``seen``.

    Answered when there is a change, or after a while.  Until the lease of the answer is over, no commit
    that replaces or removes a name under ``prefixes`` is confirmed before this watcher has seen it.
    """

    watcher: OperationId
    """Random; one for each cache."""
    seen: Natural
    """``sequence`` of the last answer; 0 at first."""
    prefixes: Annotated[list[Prefix], Meta(max_length=8)]


class Changes(Message, tag=56, frozen=True):
    """These names no longer are what they were."""

    sequence: Natural
    paths: list[str]
    lost: bool
    """The master does not know what the watcher has missed: it must let go of everything."""
    lease_ms: Natural
    """From the moment at which the watcher asked."""


# --- proxy: 60 to 79 -----------------------------------------------------------------------------


class PutFragment(Request, tag=60, frozen=True):
    """Driver -> proxy, with the payload: store this on every replica of some group."""

    checksum: Natural


class Stored(Message, tag=61, frozen=True):
    """On stable storage of every replica; not visible until a commit names it."""

    fragment: FragmentRef
    epoch: Natural


class PutObject(Request, tag=62, frozen=True):
    """Driver -> proxy, with the payload: ``PutFragment`` and a commit of one ``PutOperation`` in one.

    Answered by ``Committed``.  An empty payload makes an object without fragments.
    """

    operation_id: OperationId
    path: Path
    checksum: Natural
    digest: Text = ""
    attributes: Attributes = {}
    if_generation: int = -1
    immutable: bool = False


class GetFragment(Request, tag=63, frozen=True):
    """Driver -> proxy: bytes of a fragment, from any good replica.  Answered by ``FragmentData``."""

    fragment: FragmentRef
    offset: Length
    length: Length
    near: Text = ""
    """The driver's machine, when a place will do."""
    missed: bool = False
    """The right bytes were not at the place that was told."""


class GetObject(Request, tag=64, frozen=True):
    """Driver -> proxy: open an object at ``offset`` and send up to ``length`` of its bytes.

    The answer carries what lies in the first fragment; the rest is read with ``GetFragment``.
    """

    path: Path
    offset: Size
    length: Size
    near: Text = ""
    """The driver's machine, when a place will do."""
    missed: bool = False
    """The right bytes were not at the place that was told."""


class ObjectData(Message, tag=65, frozen=True):
    """The object, the page of its fragments around ``offset``, and bytes from ``offset`` in the payload.

    ``checksum`` is of the payload as sent.  Or, with an empty payload, the place of the fragment that
    ``offset`` is in, as in ``FragmentData``.
    """

    info: ObjectInfo
    start: Size
    fragments: FragmentPage
    more: bool
    offset: Size
    checksum: Natural
    file: Text = ""
    position: Natural = 0


# --- operator: 80 to 99 --------------------------------------------------------------------------


class GetStatus(Request, tag=80, frozen=True):
    """Operator -> master: everything about nodes and groups."""


class ClusterStatus(Message, tag=81, frozen=True):
    """The cluster as the master sees it."""

    term: Natural
    uptime_ms: Natural
    version: str
    fid_high_water: Natural
    pending_deletes: Natural
    nodes: list[NodeStatus]
    groups: list[GroupStatus]
    doomed: Natural = 0
    """Objects that were deleted and whose fragments are not on the to-delete lists yet."""
    orphans_freed: Natural = 0
    """Fragments that no object named, found and put on the to-delete lists since the master's start."""


class SetServerStatus(Request, tag=82, frozen=True):
    """Operator -> master: let this server take writes (``rw``) or not (``ro``).  Safe to repeat."""

    server: Name
    status: Name


class ServerStatusSet(Message, tag=83, frozen=True):
    """Durable; ``changed`` is false when it was so already."""

    node: NodeStatus
    changed: bool


class AddGroup(Request, tag=84, frozen=True):
    """Operator -> master: let there be a group for new chunk servers.

    ``group`` 0: the first without members or, where all have some, a new one; so repeating it adds no other.
    ``replicas`` 0: as many as groups have by default.
    """

    group: Natural
    replicas: Natural
    dry_run: bool


class GroupAdded(Message, tag=85, frozen=True):
    """Durable, unless it was a dry run; ``changed`` is false when it was there already."""

    group: GroupStatus
    changed: bool


TaskKind = Literal[
    "drain-group", "rebalance", "add-node", "replace-node", "drain-node", "repair", "gc", "accept-loss"
]


class StartTask(Request, tag=86, frozen=True):
    """Operator -> master: begin this.  Repeating it finds the task that runs, and sets its limit.

    | kind | does | needs |
    |---|---|---|
    | drain-group | move all fragments of a group to others | group |
    | rebalance | move fragments from full groups to emptier ones | |
    | add-node | make a server a member of a group, beside those it has | server, group |
    | replace-node | put one server in the place of another | server, replacement |
    | drain-node | the same, by any server that is free | server |
    | repair | compare each member of a group (0: of all) with the catalog; fetch what it lacks | |
    | gc | find fragments that no object names, in all groups, and free them | |
    | accept-loss | let a group be empty whose data directories are all gone | group |
    """

    kind: TaskKind
    group: Natural = 0
    server: Annotated[str, Meta(max_length=128)] = ""
    replacement: Annotated[str, Meta(max_length=128)] = ""
    bytes_per_s: Natural = 0
    """Of fragments moved; 0: the default."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""


class TaskStarted(Message, tag=87, frozen=True):
    """Durable, unless it was a dry run; ``changed`` is false when it ran already."""

    task: TaskStatus
    changed: bool
    plan: list[str]
    """What will be done, for people."""


class CancelTask(Request, tag=88, frozen=True):
    """Operator -> master: do no more of this; what was moved stays moved."""

    task: Natural


class ListTasks(Request, tag=89, frozen=True):
    """Operator -> master: which tasks run, and which have ended lately?"""


class TaskList(Message, tag=90, frozen=True):
    """By number; the newest last."""

    tasks: list[TaskStatus]


class ListEvents(Request, tag=91, frozen=True):
    """Operator -> master: what happened after event ``after``?  At most ``limit``, the newest."""

    after: Natural
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)]


class EventList(Message, tag=92, frozen=True):
    """By number; the newest last."""

    events: list[EventRecord]


AnyMessage = Union[
    Failed, Ping, Pong, ProbeMemory, MemoryProbed,
    StoreFragment, FragmentStored, ReadFragment, FragmentData, AbortFragment, FragmentAborted,
    ListBuckets, Buckets, ListBucket, BucketEntries, MaintainChunk, ChunkDetails,
    StoreFragments, FragmentsStored,
    Heartbeat, Assignment, LeaseFids, FidLease, GetTopology, Topology, ReportFailure, Noted,
    AuditFragments, Audited,
    Commit, Committed, Stat, Found, Open, Opened, ListFragments, Fragments, ListObjects, Listing,
    CatalogChanged, TakeMoves, Moves, Relocate, Relocated, Watch, Changes,
    PutFragment, Stored, PutObject, GetFragment, GetObject, ObjectData,
    GetStatus, ClusterStatus, SetServerStatus, ServerStatusSet,
    AddGroup, GroupAdded, StartTask, TaskStarted, CancelTask, ListTasks, TaskList, ListEvents, EventList,
]  # fmt: skip
"""What a header frame decodes to."""

REPLIES: dict[type[Request], type[Message]] = {
    Ping: Pong,
    ProbeMemory: MemoryProbed,
    StoreFragment: FragmentStored,
    ReadFragment: FragmentData,
    AbortFragment: FragmentAborted,
    ListBuckets: Buckets,
    ListBucket: BucketEntries,
    MaintainChunk: ChunkDetails,
    StoreFragments: FragmentsStored,
    Heartbeat: Assignment,
    LeaseFids: FidLease,
    GetTopology: Topology,
    ReportFailure: Noted,
    Commit: Committed,
    Stat: Found,
    Open: Opened,
    ListFragments: Fragments,
    ListObjects: Listing,
    PutFragment: Stored,
    PutObject: Committed,
    GetFragment: FragmentData,
    GetObject: ObjectData,
    GetStatus: ClusterStatus,
    SetServerStatus: ServerStatusSet,
    AuditFragments: Audited,
    TakeMoves: Moves,
    Relocate: Relocated,
    Watch: Changes,
    AddGroup: GroupAdded,
    StartTask: TaskStarted,
    CancelTask: TaskStarted,
    ListTasks: TaskList,
    ListEvents: EventList,
}
"""The reply that answers a request when it is not ``Failed``."""

WITH_PAYLOAD: frozenset[type[Message]] = frozenset(
    {StoreFragment, StoreFragments, FragmentData, PutFragment, PutObject, ObjectData}
)
"""Messages that have a payload frame; all others have none."""
