"""The bytes of a data file: its superblock and its record headers.  Tables: ``docs/formats.md``.

All numbers are little-endian.  A record header is bound to its place three times over: it holds its own
offset, its checksum is seeded with the salt of its file, and it names the fid.  So a header that was
swapped, left over from an earlier write, or brought in as *payload* by a client (who cannot know the salt)
is not taken for a record.

``batch`` is the offset at which the write that brought this record began.  That write was begun after
everything before it was on stable storage, so a sound record proves that a damaged one *before its
batch* was once sound: bitrot, and not a torn write.
"""

from __future__ import annotations

import struct

import msgspec
import xxhash

FORMAT_VERSION = 1

SUPERBLOCK_MAGIC = b"FABRICDF"
SUPERBLOCK_BYTES = 4096
"""Two equal copies of half this size; the first record follows."""
RECORD_MAGIC = b"FRec"
RECORD_HEADER_BYTES = 72
ALIGNMENT = 8

TOMBSTONE = 1
"""Flag of a record: its fid is dead; length and checksum are those of what it deletes, no payload."""

APPENDED, COMPACTED = 0, 1
"""Kinds of data files: one that clients' records were appended to; one that compaction wrote whole."""

_SUPERBLOCK = struct.Struct("<8sHHI16sQQ")
_CHECKSUM = struct.Struct("<Q")
_HEADER = struct.Struct("<4sBBHQQQQQQII")

assert _SUPERBLOCK.size + _CHECKSUM.size == 56 <= SUPERBLOCK_BYTES // 2
assert _HEADER.size + _CHECKSUM.size == RECORD_HEADER_BYTES
assert RECORD_HEADER_BYTES % ALIGNMENT == 0 == SUPERBLOCK_BYTES % ALIGNMENT

PADDING = tuple(bytes(count) for count in range(ALIGNMENT))

_checksum = xxhash.xxh3_64_intdigest


class Superblock(msgspec.Struct, frozen=True):
    """Which file this is, and whose."""

    uuid: bytes
    """16 bytes: the server that wrote it."""
    number: int
    salt: int
    """Random 64 bits that seed the checksums of its record headers."""
    created_at_ms: int
    kind: int = APPENDED
    version: int = FORMAT_VERSION


class RecordHeader(msgspec.Struct, frozen=True):
    """What stands before a payload."""

    fid: int
    offset: int
    checksum: int
    """xxh3-64 of the payload."""
    epoch: int
    time_ms: int
    """Wall clock, for people only."""
    batch: int
    group: int
    length: int
    """Bytes of the fragment; of a tombstone, of the fragment that it deletes."""
    flags: int = 0

    @property
    def is_tombstone(self) -> bool:
        return bool(self.flags & TOMBSTONE)

    @property
    def payload_bytes(self) -> int:
        """Bytes that follow the header: none for a tombstone."""
        return 0 if self.flags & TOMBSTONE else self.length

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + record_bytes(self.payload_bytes)


def record_bytes(payload_bytes: int) -> int:
    """Bytes that a record takes, with header and padding."""
    return (RECORD_HEADER_BYTES + payload_bytes + ALIGNMENT - 1) & -ALIGNMENT


def encode_superblock(block: Superblock) -> bytes:
    """The first ``SUPERBLOCK_BYTES`` of a file."""
    packed = _SUPERBLOCK.pack(
        SUPERBLOCK_MAGIC,
        block.version,
        block.kind,
        block.number,
        block.uuid,
        block.salt,
        block.created_at_ms,
    )
    half = packed + _CHECKSUM.pack(_checksum(packed))
    return half.ljust(SUPERBLOCK_BYTES // 2, b"\0") * 2


def decode_superblock(data: bytes) -> Superblock | None:
    """The superblock, from whichever of its copies is sound; None when neither is."""
    for start in (0, SUPERBLOCK_BYTES // 2):
        packed = data[start : start + _SUPERBLOCK.size]
        check = data[start + _SUPERBLOCK.size : start + _SUPERBLOCK.size + _CHECKSUM.size]
        if len(check) < _CHECKSUM.size or _CHECKSUM.unpack(check)[0] != _checksum(packed):
            continue
        magic, version, kind, number, uuid, salt, created_at_ms = _SUPERBLOCK.unpack(packed)
        if magic == SUPERBLOCK_MAGIC:
            return Superblock(uuid, number, salt, created_at_ms, kind, version)
    return None


def encode_header(header: RecordHeader, salt: int) -> bytes:
    """The 72 bytes before a payload."""
    packed = _HEADER.pack(
        RECORD_MAGIC,
        FORMAT_VERSION,
        header.flags,
        0,
        header.fid,
        header.offset,
        header.checksum,
        header.epoch,
        header.time_ms,
        header.batch,
        header.group,
        header.length,
    )
    return packed + _CHECKSUM.pack(_checksum(packed, salt))


def decode_header(data: bytes | memoryview, at: int, offset: int, salt: int) -> RecordHeader | None:
    """The header at ``data[at:]``, which lies at ``offset`` of its file; None when it is not sound."""
    if len(data) - at < RECORD_HEADER_BYTES:
        return None
    (magic, version, flags, _, fid, own_offset, checksum, epoch, time_ms, batch, group, length) = (
        _HEADER.unpack_from(data, at)
    )
    if magic != RECORD_MAGIC or own_offset != offset or version != FORMAT_VERSION:
        return None
    packed = data[at : at + _HEADER.size]
    if _CHECKSUM.unpack_from(data, at + _HEADER.size)[0] != _checksum(packed, salt):
        return None
    return RecordHeader(fid, offset, checksum, epoch, time_ms, batch, group, length, flags)
