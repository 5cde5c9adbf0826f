"""Every limit and timeout, with its unit in its name.

Modules take what they need as arguments; the command line builds a ``Settings`` from its defaults
and a TOML file, so a value is written down once.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# --- wire limits: part of the protocol, the same everywhere ------------------------------------

FRAGMENT_BYTES_MAX = 4 * MIB
"""A payload is at most one fragment."""

HEADER_BYTES_MAX = 1 * MIB
"""The header frame of a message."""

FRAMES_MAX = 3
"""Frames of a message after the identity: delimiter, header, payload."""

PATH_BYTES_MAX = 1024
"""A path's length in UTF-8."""

FRAGMENTS_PER_PAGE_MAX = 128
"""Fragments in one page of an object's fragment list, and in one message."""

OPERATIONS_MAX = 256
"""Operations in one atomic commit."""

JOINED_FRAGMENTS_MAX = 2048
"""Fragments that one commit may take from objects and put at the end of others."""

LIST_LIMIT_MAX = 1000
"""Names in one page of a listing."""

UPKEEP_RECORD_BYTES = 16 * KIB
"""What scrub and compaction charge a record with, on top of its bytes: small ones cost processor time."""

BUCKETS = 256
"""A group's fragments are compared by digests over this many buckets of fids."""

# --- defaults ----------------------------------------------------------------------------------

MASTER_PORT = 7400
PUBLISH_PORT = 7401
CHUNK_PORT = 7410
PROXY_PORT = 7420
REGISTRY_PORT = 5000


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tunable values.  Times in seconds, sizes in bytes."""

    # membership
    heartbeat_interval_s: float = 1.0
    lease_s: float = 4.0
    """A server silent for this long is OFFLINE, and fences itself."""
    min_write_replicas: Annotated[int, msgspec.Meta(ge=0)] = 0
    """When a member of a group is lost, the group goes on without it as long as so many of its members are
    left; every acknowledged write is on all of those.  0: it stops taking writes until all are back."""

    # names
    name_lease_s: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """For so long a registry may answer from copies of names; a moved tag or a deletion waits at most so long
    for a registry that hangs."""

    # fids
    fid_range_count: int = 100_000
    fid_lease_s: float = 600.0

    # deletion
    delete_grace_s: float = 30.0
    """Readers that opened an object before it was deleted may finish within this time."""

    # requests
    request_timeout_s: float = 10.0
    store_timeout_s: float = 3.0
    """A replica that has not confirmed a fragment by then counts as failed for this write."""
    read_timeout_s: float = 2.0
    """A replica that has not answered a read by then is passed over for the next one."""
    hedge_after_s_min: float = 0.02
    hedge_after_s_max: float = 0.3
    """A replica that is slower than nearly all were lately gets company; the bounds of that time."""
    write_patience_s: float = 8.0
    """How long a client waits for a writable group before it gives up."""

    # memory
    proxy_inflight_bytes_max: int = 128 * MIB
    chunk_inflight_bytes_max: int = 96 * MIB
    client_window_bytes: int = 24 * MIB
    """Bytes of fragments that one stream keeps in flight."""
    client_inflight_bytes_max: int = 64 * MIB
    """Bytes of fragments that one client process keeps in flight, over all of its streams."""

    near_reads: bool = True
    """Readers on the machine of a chunk server read its files themselves."""
    near_writes: bool = True
    """Chunk servers on the machine of a driver read the fragments that it stores in its memory."""

    # chunk engine
    data_file_bytes_max: Annotated[int, msgspec.Meta(ge=64 * KIB, le=2 * GIB)] = 1 * GIB
    """Size at which a data file is sealed and the next begun; at most 2 GiB."""
    reserve_bytes: int = 512 * MIB
    """A chunk server goes read-only when its disk has less room than this."""
    checkpoint_bytes: int = 256 * MIB
    """The durable watermark moves at least once in this many bytes."""
    one_warm_copy: bool = True
    """Of a large fragment one replica keeps the bytes in memory after a write; reads ask it first."""
    read_threads: int = 2
    scrub_bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] = 8 * MIB
    """At which the scrub reads."""
    scrub_interval_s: float = 7 * 24 * 3600.0
    """From the start of one scrub to the start of the next."""
    compaction_bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] = 32 * MIB
    """At which compaction reads and writes; each record counts as ``UPKEEP_RECORD_BYTES`` more."""
    compaction_garbage_ratio: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.3
    """A data file with this share of garbage is compacted."""
    catch_up_bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] = 1 * GIB
    """At which a server that was away, or is new, copies what it lacks."""
    move_bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] = 128 * MIB
    """At which fragments move to other groups, unless an operator says otherwise."""
    audit_interval_s: float = 900.0
    """Between two comparisons of a server's fragments with the catalog, which find what nothing names."""
    tombstone_keep_s: float = 3600.0
    """A tombstone stays at least so long, for stores of its fid that are still under way."""

    # registry
    upload_expiry_s: float = 24 * 3600.0
    """An upload that does not grow for so long is discarded by garbage collection."""
    gc_interval_s: float = 3600.0
    """About so long from one pass of a registry process to its next; 0: it runs none by itself."""
    gc_pause_s: float = 0.02
    """Between two steps of a pass, of 32 things each, so that others come first."""
    gc_grace_s: float = 24 * 3600.0
    """A blob that no manifest references stays twice so long: its manifest may be on the way."""
    gc_untagged_after_s: float = -1.0
    """A manifest that nothing names for so long is moved to the trash; negative: never."""
    undelete_s: float = 7 * 24 * 3600.0
    """Deleted manifests, and earlier states of tags, can be restored for so long."""
    manifest_bytes_max: int = 4 * MIB
    registry_cache_bytes: int = 64 * MIB
    """Tags, links, manifests and configurations that one registry process keeps copies of; 0: none."""
    registry_uploads_max: int = 64
    """Request bodies that one registry process takes at once; beyond that it answers 429."""
    registry_downloads_max: int = 256
    """Blobs that one registry process sends at once; beyond that it answers 429."""
    parallel_uploads: bool = True
    """Take uploads in parts, from clients that ask for it."""
    client_stall_timeout_s: float = 120.0
    """An HTTP client that neither sends nor takes bytes for so long is given up."""


def settings_from(values: dict[str, Any]) -> Settings:
    """Build settings from a parsed TOML table.

    Raises ``msgspec.ValidationError`` that names the key on an unknown key or a wrong type.
    """
    return msgspec.convert(values, Settings, strict=True)
