"""The index: where the record of each fid lies.  A contract, and what every implementation shares.

The data files are the truth; the index is a faster way to them and can be made anew at any time.

**Durability.**  ``put`` is atomic but survives a power cut only with the next ``checkpoint``, which also
moves the *watermark*: the place in the data files up to which every record is known to be in
the index.  Recovery reads the data files from there.  What was put after the last checkpoint may
survive in part, in order: never a later ``put`` without an earlier one.

**Damage.**  An implementation must notice it (each value carries a checksum of its own) and raise
IndexLost.  Then the index is made anew; it is never repaired, and never silently empty.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
import xxhash

from fabric.chunk.record import TOMBSTONE, record_bytes
from fabric.errors import DiskFailed
from fabric.settings import BUCKETS


class IndexLost(DiskFailed):
    """The index is missing or damaged: rebuild it from the data files."""


class Entry(msgspec.Struct, frozen=True):
    """Where a fragment or its tombstone lies."""

    file: int
    offset: int
    length: int
    checksum: int
    flags: int = 0

    @property
    def is_tombstone(self) -> bool:
        return bool(self.flags & TOMBSTONE)

    @property
    def end(self) -> int:
        """Where the record behind this one begins."""
        return self.offset + record_bytes(0 if self.flags & TOMBSTONE else self.length)


class Watermark(msgspec.Struct, frozen=True, order=True):
    """Every record before this place is in the index, and both are on stable storage."""

    file: int
    offset: int


class Index(Protocol):
    """fid -> Entry, ordered by (bucket, fid).  Reads may run on several threads beside one writer.

    Every method may raise IndexLost (damage) or DiskFailed or NoSpace (the system refused).
    """

    def get(self, fid: int) -> Entry | None: ...

    def put(self, entries: Sequence[tuple[int, Entry]]) -> None:
        """Insert or replace, all or none."""
        ...

    def scan(self) -> Iterator[tuple[int, Entry]]:
        """Everything, by (bucket, fid), each value verified."""
        ...

    def scan_bucket(self, bucket: int, after: int | None) -> Iterator[tuple[int, Entry]]:
        """One bucket by fid, from the first fid above ``after``; None: from the start."""
        ...

    def checkpoint(self, watermark: Watermark) -> None:
        """Make every earlier ``put`` durable, then the watermark."""
        ...

    def watermark(self) -> Watermark | None:
        """The last checkpoint; None before the first."""
        ...

    def close(self) -> None: ...


class IndexHome(Protocol):
    """Where an index lives."""

    def open(self) -> Index:
        """The index that is there.  Raises IndexLost when there is none or it is damaged."""
        ...

    def create(self) -> Index:
        """An empty index in the place of whatever was there, which is moved aside."""
        ...


_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1

assert BUCKETS == 256


def bucket_of(fid: int) -> int:
    """The bucket of a fid: the top byte of fid * 0x9E3779B97F4A7C15 mod 2**64.

    Fids are handed out in ranges; the multiplication spreads neighbours over all buckets.
    """
    return ((fid * _GOLDEN) & _MASK) >> 56


# --- the bytes of keys and values ----------------------------------------------------------------

_KEY = struct.Struct(">cBQ")
_VALUE = struct.Struct("<QQIII")
_WATERMARK = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<Q")

FRAGMENTS = b"f"
WATERMARK_KEY = b"w"

assert _KEY.size == 10
assert _VALUE.size + _CHECKSUM.size == 36
assert _WATERMARK.size + _CHECKSUM.size == 20


def encode_key(fid: int) -> bytes:
    """``f``, the bucket, the fid big-endian: so that one bucket lies together, in the order of fids."""
    return _KEY.pack(FRAGMENTS, bucket_of(fid), fid)


def bucket_prefix(bucket: int) -> bytes:
    """What the keys of a bucket begin with."""
    return FRAGMENTS + bytes([bucket])


def decode_key(key: bytes) -> int:
    """The fid of a key.  Raises IndexLost."""
    if len(key) != _KEY.size:
        raise IndexLost(f"index key {key.hex()} is not of this format")
    fid: int = _KEY.unpack(key)[2]
    return fid


def encode_value(key: bytes, entry: Entry) -> bytes:
    """Packed entry and a checksum over key and entry, so that a swapped value is noticed too."""
    packed = _VALUE.pack(entry.offset, entry.checksum, entry.file, entry.length, entry.flags)
    return packed + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(key + packed))


def decode_value(key: bytes, value: bytes) -> Entry:
    """The entry.  Raises IndexLost."""
    packed = _checked(key, value, _VALUE.size)
    offset, checksum, file, length, flags = _VALUE.unpack(packed)
    return Entry(file, offset, length, checksum, flags)


def encode_watermark(watermark: Watermark) -> bytes:
    """Packed and checksummed like an entry."""
    packed = _WATERMARK.pack(watermark.offset, watermark.file)
    return packed + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(WATERMARK_KEY + packed))


def decode_watermark(value: bytes) -> Watermark:
    """The watermark.  Raises IndexLost."""
    offset, file = _WATERMARK.unpack(_checked(WATERMARK_KEY, value, _WATERMARK.size))
    return Watermark(file, offset)


def _checked(key: bytes, value: bytes, size: int) -> bytes:
    packed = value[:size]
    if len(value) != size + _CHECKSUM.size or _CHECKSUM.unpack(value[size:])[0] != xxhash.xxh3_64_intdigest(
        key + packed
    ):
        raise IndexLost(f"index value of key {key.hex()} fails its checksum")
    return packed
