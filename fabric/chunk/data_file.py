"""One append-only file of records.

``end`` is where the next record goes.  Everything before it is on stable storage: it only moves after an
``fdatasync`` that succeeded.  Behind it lie zeros, allocated ahead in steps so that a full disk shows
before a write and not in the middle of one.  A write that failed is wiped by cutting the file at ``end``:
a leftover record must not be found by a later scan.  If that fails too, or an ``fdatasync`` fails, the file
is ``failed`` and never written again.
"""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from fabric.chunk.record import (
    APPENDED,
    COMPACTED,
    FORMAT_VERSION,
    RECORD_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    RecordHeader,
    Superblock,
    decode_header,
    decode_superblock,
    encode_superblock,
)
from fabric.errors import BadChecksum, DiskFailed, FabricError, NoSpace
from fabric.node.disk import Buffer, Disk, File

SUFFIX = ".data"
UNFINISHED_SUFFIX = ".new"
"""Behind the name of a file that compaction is writing; a start removes it."""
ALLOCATE_BYTES = 64 * 1024 * 1024


class BadSuperblock(FabricError):
    """Neither copy of a file's superblock is sound."""

    code = "DISK_FAILED"


class ForeignFile(FabricError):
    """The file belongs to another server, or to a version that this one cannot read."""

    code = "DISK_FAILED"


def file_name(number: int) -> str:
    """Such as ``00000001.data``."""
    return f"{number:08d}{SUFFIX}"


def file_number(name: str) -> int | None:
    """The number in a data file's name; None for any other file."""
    stem = name.removesuffix(SUFFIX)
    return int(stem) if stem != name and len(stem) == 8 and stem.isdigit() else None


class DataFile:
    """An open data file."""

    def __init__(self, file: File, superblock: Superblock, end: int) -> None:
        self.file = file
        self.superblock = superblock
        self.number = superblock.number
        self.is_compacted = superblock.kind == COMPACTED
        """Written whole by compaction: never appended to, and never torn."""
        self.salt = superblock.salt
        self.end = end
        self.failed = ""
        """Why it is not written any more; empty while it is."""
        self.bytes_max = ALLOCATE_BYTES
        """Space is not allocated ahead beyond this size."""
        self._allocated = file.size()

    @classmethod
    def create(cls, disk: Disk, superblock: Superblock) -> DataFile:
        """A new file, its superblock and its name on stable storage.

        One that compaction writes has an unfinished name, until ``finish``.

        Raises NoSpace (nothing is left of it), DiskFailed (what is left is removed at the next start).
        """
        name = file_name(superblock.number)
        compacted = superblock.kind == COMPACTED
        if compacted:
            name += UNFINISHED_SUFFIX
        file = disk.create(name)
        try:
            file.pwritev([encode_superblock(superblock)], 0)
            file.fdatasync()
            if not compacted:
                disk.sync_directory()
        except NoSpace:
            file.close()
            disk.remove(name)
            if not compacted:
                # The file before stays the newest one; a power cut must not bring this one back behind it.
                disk.sync_directory()
            raise
        except DiskFailed:
            file.close()
            raise
        return cls(file, superblock, SUPERBLOCK_BYTES)

    @classmethod
    def open(cls, disk: Disk, number: int, uuid: bytes) -> DataFile:
        """An existing file; ``end`` is not known yet and set to the first record.

        Raises BadSuperblock, ForeignFile, DiskFailed.
        """
        name = file_name(number)
        file = disk.open(name)
        try:
            superblock = decode_superblock(file.pread(SUPERBLOCK_BYTES, 0))
            if superblock is None:
                raise BadSuperblock(f"{name} has no sound superblock")
            if superblock.version != FORMAT_VERSION:
                raise ForeignFile(
                    f"{name} has format {superblock.version}, and this program reads {FORMAT_VERSION}: "
                    "use the program that wrote it, or a newer one"
                )
            if superblock.kind not in (APPENDED, COMPACTED):
                raise ForeignFile(
                    f"{name} is of kind {superblock.kind}, which this program does not know: use a newer one"
                )
            if superblock.uuid != uuid:
                raise ForeignFile(f"{name} belongs to server {superblock.uuid.hex()}, this is {uuid.hex()}")
            if superblock.number != number:
                raise ForeignFile(f"{name} was written as {file_name(superblock.number)}")
        except FabricError:
            file.close()
            raise
        return cls(file, superblock, SUPERBLOCK_BYTES)

    def append(self, buffers: Sequence[Buffer], length: int) -> None:
        """Write ``length`` bytes of records at ``end``, sync them, move ``end``: all or nothing.

        Raises NoSpace (the file is as before), DiskFailed (the file has failed).
        """
        if self.failed:
            raise DiskFailed(self.failed)
        try:
            self._allocate(self.end + length)
            self.file.pwritev(buffers, self.end)
        except NoSpace:
            self.cut()
            raise
        except DiskFailed as error:
            self.failed = error.message
            raise
        self._sync()
        self.end += length

    def finish(self, disk: Disk) -> None:
        """Give a file that compaction has written its name, durably.  Raises DiskFailed, NoSpace."""
        self.cut()
        disk.rename(file_name(self.number) + UNFINISHED_SUFFIX, file_name(self.number))
        disk.sync_directory()

    def cut(self) -> None:
        """Make everything from ``end`` on zeros, durably.  Raises DiskFailed (the file has failed)."""
        try:
            self.file.truncate(self.end)
        except FabricError as error:
            self.failed = error.message
            raise DiskFailed(error.message) from error
        self._sync()
        self._allocated = self.end

    def rewrite(self, start: int, block_bytes: int) -> None:
        """Write the bytes from ``start`` to ``end`` once more over themselves, and sync.

        With ``start`` 0 both copies of the superblock become sound.  A read may show bytes that an
        ``fdatasync`` failed to bring to the disk; only a new write makes the system try again.  Raises
        NoSpace, DiskFailed.
        """
        if start == 0:
            self.file.pwritev([encode_superblock(self.superblock)], 0)
            start = SUPERBLOCK_BYTES
        for position in range(start, self.end, block_bytes):
            block = self.file.pread(min(block_bytes, self.end - position), position)
            self.file.pwritev([block], position)
        self._sync()

    def read(self, fid: int, offset: int, length: int, checksum: int) -> memoryview:
        """The payload of one record, after everything about it was verified.

        Raises BadChecksum (this copy is damaged), DiskFailed.
        """
        data = self.pread(RECORD_HEADER_BYTES + length, offset)
        self._sound_header(data, fid, offset, length, checksum)
        payload = memoryview(data)[RECORD_HEADER_BYTES:]
        if len(payload) != length or xxhash.xxh3_64_intdigest(payload) != checksum:
            raise BadChecksum(f"fragment {fid}: payload at {offset} of {file_name(self.number)} is damaged")
        return payload

    def read_header(self, fid: int, offset: int, length: int, checksum: int) -> RecordHeader:
        """The header of one record, verified.  Raises BadChecksum, DiskFailed."""
        data = self.pread(RECORD_HEADER_BYTES, offset)
        return self._sound_header(data, fid, offset, length, checksum)

    def _sound_header(self, data: bytes, fid: int, offset: int, length: int, checksum: int) -> RecordHeader:
        header = decode_header(data, 0, offset, self.salt)
        if header is None:
            raise BadChecksum(f"fragment {fid}: no sound record at {offset} of {file_name(self.number)}")
        if header.fid != fid or header.length != length or header.checksum != checksum:
            raise BadChecksum(f"fragment {fid}: another record lies at {offset} of {file_name(self.number)}")
        return header

    def pread(self, length: int, offset: int) -> bytes:
        """Bytes as they are.  Raises DiskFailed (the file has failed)."""
        try:
            return self.file.pread(length, offset)
        except DiskFailed as error:
            self.failed = error.message
            raise

    @property
    def data_bytes(self) -> int:
        """Of its records, and of what was damaged between them."""
        return self.end - SUPERBLOCK_BYTES

    def _allocate(self, end: int) -> None:
        if end <= self._allocated:
            return
        ahead = min(self._allocated + ALLOCATE_BYTES, self.bytes_max)
        try:
            self.file.allocate(self._allocated, max(ahead, end) - self._allocated)
        except NoSpace:
            # Nearly full: take what this write needs and no more.
            self.file.allocate(self._allocated, end - self._allocated)
        self._allocated = self.file.size()

    def _sync(self) -> None:
        try:
            self.file.fdatasync()
        except DiskFailed as error:
            self.failed = error.message
            raise
