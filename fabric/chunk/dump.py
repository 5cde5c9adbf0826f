"""One data file alone: without its directory, its index and, if need be, its superblock.

Record headers are told from other bytes by the salt.  Of a superblock whose two copies are both damaged the
salt may have survived in one of them: it is right if any header in the file fits it.
"""

from __future__ import annotations

from collections.abc import Iterator

from fabric.chunk.data_file import BadSuperblock, DataFile, ForeignFile
from fabric.chunk.record import (
    APPENDED,
    COMPACTED,
    FORMAT_VERSION,
    SUPERBLOCK_BYTES,
    Superblock,
    decode_superblock,
    encode_superblock,
)
from fabric.chunk.scan import Found, Gap, scan
from fabric.chunk.verify import end_of_bytes
from fabric.node.disk import File

SALT_OFFSET, SALT_BYTES = 32, 8

_ALL_ONES = encode_superblock(Superblock(bytes(16), 0, 2**64 - 1, 0))
assert _ALL_ONES[SALT_OFFSET : SALT_OFFSET + SALT_BYTES] == b"\xff" * SALT_BYTES
assert not any(_ALL_ONES[SALT_OFFSET - 16 : SALT_OFFSET])


def open_alone(file: File, name: str) -> tuple[DataFile, Superblock | None]:
    """The file, and its superblock unless that is damaged.

    Raises BadSuperblock (no record can be told), ForeignFile (a newer format), DiskFailed.
    """
    data = file.pread(SUPERBLOCK_BYTES, 0)
    superblock = decode_superblock(data)
    if superblock is None:
        return _without_superblock(file, data, name), None
    if superblock.version != FORMAT_VERSION or superblock.kind not in (APPENDED, COMPACTED):
        raise ForeignFile(
            f"{name} has format {superblock.version} and is of kind {superblock.kind}; this program reads "
            f"format {FORMAT_VERSION}, kinds {APPENDED} and {COMPACTED}: use the program that wrote it, or a "
            "newer one"
        )
    return DataFile(file, superblock, SUPERBLOCK_BYTES), superblock


def _without_superblock(file: File, data: bytes, name: str) -> DataFile:
    for start in (SALT_OFFSET, SUPERBLOCK_BYTES // 2 + SALT_OFFSET):
        salt = int.from_bytes(data[start : start + SALT_BYTES], "little")
        data_file = DataFile(file, Superblock(bytes(16), 0, salt, 0), SUPERBLOCK_BYTES)
        if any(isinstance(item, Found) for item in scan(data_file, SUPERBLOCK_BYTES, file.size())):
            return data_file
    raise BadSuperblock(
        f"{name} is not a data file, or its superblock is damaged, and with it the salt that tells records"
    )


def items(data_file: DataFile) -> Iterator[Found | Gap]:
    """What a scan finds, and as a last gap what lies behind it, unless it is zeros.  Raises DiskFailed."""
    size = data_file.file.size()
    end = SUPERBLOCK_BYTES
    for item in scan(data_file, end, size):
        end = item.end
        yield item
    behind = end_of_bytes(data_file, end, size)
    if behind > end:
        yield Gap(end, behind)
