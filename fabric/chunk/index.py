"""The index: where the record of each fid lies.  A contract, and what every implementation shares.

The data files are the truth; the index is a faster way to them and can be made anew at any time.

**Durability.**  ``put`` is atomic but survives a power cut only with the next ``checkpoint``, which also
moves the *watermark*: the place in the data files up to which every record is known to be in
the index.  Recovery reads the data files from there.  What was put after the last checkpoint may
survive in part, in order: never a later ``put`` without an earlier one.

**Counters.**  With its rows a ``put`` brings the counters that they change (one per bucket, one per data
file) in the same atomic batch.  So rows and counters always agree, and a start reads only the counters.

**Damage.**  An implementation must notice it (each value carries a checksum of its own) and raise
IndexLost.  Then the index is made anew; it is never repaired, and never silently empty.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec
import xxhash

from fabric.chunk.record import TOMBSTONE, record_bytes
from fabric.errors import DiskFailed
from fabric.ids import bucket_of
from fabric.settings import BUCKETS


class IndexLost(DiskFailed):
    """The index is missing or damaged: rebuild it from the data files."""


MANY = 2
"""Flag of an entry: any file up to ``stale`` may hold another copy, not only that one."""


class Entry(msgspec.Struct, frozen=True):
    """Where a fragment or its tombstone lies."""

    file: int
    offset: int
    length: int
    checksum: int
    flags: int = 0
    stale: int = 0
    """A data file that may hold an older copy of the fragment; 0: none does.  See ``copies``."""

    @property
    def is_tombstone(self) -> bool:
        return bool(self.flags & TOMBSTONE)

    @property
    def record_bytes(self) -> int:
        """What its record takes in the data file."""
        return record_bytes(0 if self.flags & TOMBSTONE else self.length)

    @property
    def end(self) -> int:
        """Where the record behind this one begins."""
        return self.offset + record_bytes(0 if self.flags & TOMBSTONE else self.length)


class Watermark(msgspec.Struct, frozen=True, order=True):
    """Every record before this place is in the index, and both are on stable storage."""

    file: int
    offset: int


class BucketTotals(msgspec.Struct, frozen=True):
    """Over the live fragments of one bucket."""

    digest: int = 0
    """128 bits; see ``totals``."""
    fragments: int = 0
    live_bytes: int = 0


class FileTotals(msgspec.Struct, frozen=True):
    """Over the entries that point into one data file, tombstones included."""

    records: int = 0
    record_bytes: int = 0
    end: int = 0
    """Behind the last record that an entry has ever pointed at."""
    complete: bool = False
    """A file that compaction wrote, whose records are all accounted for: no start needs to read it."""


class Counters(msgspec.Struct):
    """Counters by bucket and by file number; None: the file is gone."""

    buckets: dict[int, BucketTotals] = msgspec.field(default_factory=dict)
    files: dict[int, FileTotals | None] = msgspec.field(default_factory=dict)


class Index(Protocol):
    """fid -> Entry, ordered by (bucket, fid).  Reads and notes may run on several threads beside one writer.

    Every method may raise IndexLost (damage) or DiskFailed or NoSpace (the system refused).
    """

    def get(self, fid: int) -> Entry | None: ...

    def put(self, entries: Sequence[tuple[int, Entry | None]], counters: Counters) -> None:
        """Insert, replace, or remove (None), and set these counters: all or none."""
        ...

    def counters(self) -> Counters:
        """All of them."""
        ...

    def scan(self) -> Iterator[tuple[int, Entry]]:
        """Everything, by (bucket, fid), each value verified."""
        ...

    def scan_bucket(self, bucket: int, after: int | None) -> Iterator[tuple[int, Entry]]:
        """One bucket by fid, from the first fid above ``after``; None: from the start."""
        ...

    def highest_fid(self) -> int:
        """The highest fid that has an entry; -1 when none has."""
        ...

    def verify_bucket(self, bucket: int) -> None:
        """Raises IndexLost when the rows of the bucket do not agree with its counters."""
        ...

    def checkpoint(self, watermark: Watermark) -> None:
        """Make every earlier ``put`` durable, then the watermark."""
        ...

    def watermark(self) -> Watermark | None:
        """The last checkpoint; None before the first."""
        ...

    def note(self, name: str, value: bytes) -> None:
        """Keep a small value under a name, as durably as a ``put``."""
        ...

    def noted(self, name: str) -> bytes | None:
        """What was kept; None when nothing was."""
        ...

    def close(self) -> None: ...


class IndexHome(Protocol):
    """Where an index lives."""

    def open(self) -> Index:
        """The index that is there.  Raises IndexLost when there is none or it is damaged or condemned."""
        ...

    def create(self) -> Index:
        """An empty index in the place of whatever was there, which is moved aside."""
        ...

    def condemn(self) -> None:
        """Damage was found while it was open: the next ``open`` must raise IndexLost, durably."""
        ...


def fragment_digest(fid: int, length: int, checksum: int) -> int:
    """What one live fragment adds to the digest of its bucket: xxh3-128 of three little-endian u64."""
    return xxhash.xxh3_128_intdigest(_FRAGMENT.pack(fid, length, checksum))


def bucket_totals(rows: Iterable[tuple[int, Entry]]) -> BucketTotals:
    """Totals over the rows of one bucket."""
    digest = fragments = live_bytes = 0
    for fid, entry in rows:
        if not entry.is_tombstone:
            digest ^= fragment_digest(fid, entry.length, entry.checksum)
            fragments += 1
            live_bytes += entry.length
    return BucketTotals(digest, fragments, live_bytes)


def check_bucket(bucket: int, rows: Iterable[tuple[int, Entry]], counted: BucketTotals) -> None:
    """Raises IndexLost unless the rows are what was counted: none is missing, none too many."""
    found = bucket_totals(rows)
    if found != counted:
        raise IndexLost(
            f"index bucket {bucket} does not hold what it has counted: {found.fragments} live fragments with "
            f"{found.live_bytes} bytes, counted {counted.fragments} with {counted.live_bytes}"
        )


assert BUCKETS == 256


# --- the bytes of keys and values ----------------------------------------------------------------

INDEX_VERSION = 3

_FRAGMENT = struct.Struct("<QQQ")
_KEY = struct.Struct(">cBQ")
_VALUE = struct.Struct("<QQIIII")
_WATERMARK = struct.Struct("<QI")
_BUCKET = struct.Struct("<16sQQ")
_FILE = struct.Struct("<QQQI")
_FILE_KEY = struct.Struct(">cI")
_CHECKSUM = struct.Struct("<Q")

FRAGMENTS = b"f"
BUCKET_COUNTERS = b"b"
FILE_COUNTERS = b"g"
NOTES = b"n"
VERSION_KEY = b"v"
WATERMARK_KEY = b"w"

assert _KEY.size == 10
assert _VALUE.size + _CHECKSUM.size == 40
assert _WATERMARK.size + _CHECKSUM.size == 20
assert _BUCKET.size + _CHECKSUM.size == 40
assert _FILE.size + _CHECKSUM.size == 36


def encode_key(fid: int) -> bytes:
    """``f``, the bucket, the fid big-endian: so that one bucket lies together, in the order of fids."""
    return _KEY.pack(FRAGMENTS, bucket_of(fid), fid)


def bucket_prefix(bucket: int) -> bytes:
    """What the keys of a bucket begin with."""
    return FRAGMENTS + bytes([bucket])


def bucket_key(bucket: int) -> bytes:
    """Key of a bucket's counters."""
    return BUCKET_COUNTERS + bytes([bucket])


def file_key(number: int) -> bytes:
    """Key of a data file's counters."""
    return _FILE_KEY.pack(FILE_COUNTERS, number)


def note_key(name: str) -> bytes:
    """Key of a note."""
    return NOTES + name.encode()


def decode_key(key: bytes) -> int:
    """The fid of a key.  Raises IndexLost."""
    if len(key) != _KEY.size:
        raise IndexLost(f"index key {key.hex()} is not of this format")
    fid: int = _KEY.unpack(key)[2]
    return fid


def encode_value(key: bytes, entry: Entry) -> bytes:
    """Packed entry and a checksum over key and entry, so that a swapped value is noticed too."""
    return _sealed(
        key,
        _VALUE.pack(entry.offset, entry.checksum, entry.file, entry.length, entry.flags, entry.stale),
    )


def decode_value(key: bytes, value: bytes) -> Entry:
    """The entry.  Raises IndexLost."""
    offset, checksum, file, length, flags, stale = _VALUE.unpack(_checked(key, value, _VALUE.size))
    return Entry(file, offset, length, checksum, flags, stale)


def encode_bucket(key: bytes, totals: BucketTotals) -> bytes:
    """Packed and checksummed like an entry."""
    packed = _BUCKET.pack(totals.digest.to_bytes(16, "big"), totals.fragments, totals.live_bytes)
    return _sealed(key, packed)


def decode_bucket(key: bytes, value: bytes) -> BucketTotals:
    """The counters of a bucket.  Raises IndexLost."""
    digest, fragments, live_bytes = _BUCKET.unpack(_checked(key, value, _BUCKET.size))
    return BucketTotals(int.from_bytes(digest, "big"), fragments, live_bytes)


def encode_file(key: bytes, totals: FileTotals) -> bytes:
    """Packed and checksummed like an entry."""
    return _sealed(key, _FILE.pack(totals.records, totals.record_bytes, totals.end, totals.complete))


def decode_file(key: bytes, value: bytes) -> tuple[int, FileTotals]:
    """File number and its counters.  Raises IndexLost."""
    records, bytes_, end, complete = _FILE.unpack(_checked(key, value, _FILE.size))
    return _FILE_KEY.unpack(key)[1], FileTotals(records, bytes_, end, bool(complete))


def encode_watermark(watermark: Watermark) -> bytes:
    """Packed and checksummed like an entry."""
    return _sealed(WATERMARK_KEY, _WATERMARK.pack(watermark.offset, watermark.file))


def decode_watermark(value: bytes) -> Watermark:
    """The watermark.  Raises IndexLost."""
    offset, file = _WATERMARK.unpack(_checked(WATERMARK_KEY, value, _WATERMARK.size))
    return Watermark(file, offset)


def encode_note(key: bytes, value: bytes) -> bytes:
    """The value and a checksum over key and value."""
    return _sealed(key, value)


def decode_note(key: bytes, value: bytes) -> bytes:
    """The value of a note.  Raises IndexLost."""
    return _checked(key, value, max(0, len(value) - _CHECKSUM.size))


def _sealed(key: bytes, packed: bytes) -> bytes:
    return packed + _CHECKSUM.pack(_checksum(key + packed))


def _checked(key: bytes, value: bytes, size: int) -> bytes:
    packed = value[:size]
    if len(value) != size + _CHECKSUM.size or _CHECKSUM.unpack(value[size:])[0] != _checksum(key + packed):
        raise IndexLost(f"index value of key {key.hex()} fails its checksum")
    return packed


_checksum = xxhash.xxh3_64_intdigest

VERSION_VALUE = _sealed(VERSION_KEY, struct.pack("<I", INDEX_VERSION))
