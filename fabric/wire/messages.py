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


AnyOperation = Union[PutOperation, AppendOperation, MoveOperation, DeleteOperation, CheckOperation]


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


class FragmentData(Message, tag=13, frozen=True):
    """The bytes, in the payload.  ``checksum`` is of the payload as sent."""

    fid: Natural
    offset: Length
    checksum: Natural


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
    """Operator -> chunk server: begin a scrub, or give back all garbage, or only say how things are."""

    action: Literal["status", "scrub", "compact"]


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


class GetObject(Request, tag=64, frozen=True):
    """Driver -> proxy: open an object at ``offset`` and send up to ``length`` of its bytes.

    The answer carries what lies in the first fragment; the rest is read with ``GetFragment``.
    """

    path: Path
    offset: Size
    length: Size


class ObjectData(Message, tag=65, frozen=True):
    """The object, the page of its fragments around ``offset``, and bytes from ``offset`` in the payload.

    ``checksum`` is of the payload as sent.
    """

    info: ObjectInfo
    start: Size
    fragments: FragmentPage
    more: bool
    offset: Size
    checksum: Natural


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


class SetServerStatus(Request, tag=82, frozen=True):
    """Operator -> master: let this server take writes (``rw``) or not (``ro``).  Safe to repeat."""

    server: Name
    status: Name


class ServerStatusSet(Message, tag=83, frozen=True):
    """Durable; ``changed`` is false when it was so already."""

    node: NodeStatus
    changed: bool


AnyMessage = Union[
    Failed, Ping, Pong,
    StoreFragment, FragmentStored, ReadFragment, FragmentData, AbortFragment, FragmentAborted,
    ListBuckets, Buckets, ListBucket, BucketEntries, MaintainChunk, ChunkDetails,
    Heartbeat, Assignment, LeaseFids, FidLease, GetTopology, Topology, ReportFailure, Noted,
    Commit, Committed, Stat, Found, Open, Opened, ListFragments, Fragments, ListObjects, Listing,
    CatalogChanged,
    PutFragment, Stored, PutObject, GetFragment, GetObject, ObjectData,
    GetStatus, ClusterStatus, SetServerStatus, ServerStatusSet,
]  # fmt: skip
"""What a header frame decodes to."""

REPLIES: dict[type[Request], type[Message]] = {
    Ping: Pong,
    StoreFragment: FragmentStored,
    ReadFragment: FragmentData,
    AbortFragment: FragmentAborted,
    ListBuckets: Buckets,
    ListBucket: BucketEntries,
    MaintainChunk: ChunkDetails,
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
}
"""The reply that answers a request when it is not ``Failed``."""

WITH_PAYLOAD: frozenset[type[Message]] = frozenset(
    {StoreFragment, FragmentData, PutFragment, PutObject, ObjectData}
)
"""Messages that have a payload frame; all others have none."""
