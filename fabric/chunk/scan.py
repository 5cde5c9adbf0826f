"""Reading a data file from front to back, past damage.

The scan yields, in order, what it finds: a record whose header is sound (its payload may not be), or a gap:
bytes that are no record, up to the next header that is.  Records are found again behind a gap
because they are aligned, begin with a magic, and carry a checksum that is bound to file and offset.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import xxhash

from fabric.chunk.data_file import DataFile
from fabric.chunk.record import ALIGNMENT, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader, decode_header

BLOCK_BYTES = 8 * 1024 * 1024
"""Read at once; holds the largest record."""
HEADERS_BLOCK_BYTES = 64 * 1024
"""Read at once when only headers are looked at."""


class Found(msgspec.Struct, frozen=True):
    """A record with a sound header."""

    header: RecordHeader
    good: bool
    """Whether the payload matches its checksum."""

    @property
    def start(self) -> int:
        return self.header.offset

    @property
    def end(self) -> int:
        return self.header.end


class Gap(msgspec.Struct, frozen=True):
    """No record from ``start`` up to ``end``, where the next one begins."""

    start: int
    end: int


class _Window:
    """The block of the file around the position that the scan stands at."""

    def __init__(self, data_file: DataFile, block_bytes: int) -> None:
        self._file = data_file.file
        self._block_bytes = block_bytes
        self._start = 0
        self._block = b""

    def at(self, offset: int, length: int) -> tuple[bytes, int]:
        """A block and the place in it of ``offset``; holds ``length`` bytes from there if the file does."""
        place = offset - self._start
        if place < 0 or place + length > len(self._block):
            self._block = self._file.pread(max(self._block_bytes, length), offset)
            self._start, place = offset, 0
        return self._block, place


def scan(data_file: DataFile, start: int, lookahead_bytes: int) -> Iterator[Found | Gap]:
    """Everything from ``start`` to the last record that can be found.

    Behind damage the next record is looked for within ``lookahead_bytes``.  Raises DiskFailed.
    """
    return _scan(_Window(data_file, BLOCK_BYTES), data_file.salt, start, lookahead_bytes, verify=True)


def scan_headers(data_file: DataFile, start: int) -> Iterator[Found | Gap]:
    """Like ``scan`` of a sealed file, but without reading the payloads: all count as good."""
    window = _Window(data_file, HEADERS_BLOCK_BYTES)
    return _scan(window, data_file.salt, start, data_file.file.size(), verify=False)


def _scan(
    window: _Window, salt: int, start: int, lookahead_bytes: int, *, verify: bool
) -> Iterator[Found | Gap]:
    position = start
    while True:
        block, place = window.at(position, RECORD_HEADER_BYTES)
        header = decode_header(block, place, position, salt)
        if header is None:
            following = _next_header(window, position + ALIGNMENT, position + lookahead_bytes, salt)
            if following is None:
                return
            yield Gap(position, following)
            position = following
            continue
        yield Found(header, not verify or _payload_is_good(window, header))
        position = header.end


def _payload_is_good(window: _Window, header: RecordHeader) -> bool:
    if header.is_tombstone:
        return True
    block, place = window.at(header.offset, RECORD_HEADER_BYTES + header.length)
    payload = memoryview(block)[place + RECORD_HEADER_BYTES : place + RECORD_HEADER_BYTES + header.length]
    return len(payload) == header.length and xxhash.xxh3_64_intdigest(payload) == header.checksum


def _next_header(window: _Window, start: int, limit: int, salt: int) -> int | None:
    """The first offset from ``start`` on, and below ``limit``, that holds a sound header."""
    position = start
    while position < limit:
        block, place = window.at(position, RECORD_HEADER_BYTES)
        if len(block) - place < RECORD_HEADER_BYTES:
            return None
        block_start = position - place
        found = block.find(RECORD_MAGIC, place)
        while found >= 0:
            offset = block_start + found
            if offset % ALIGNMENT == 0 and decode_header(block, found, offset, salt) is not None:
                return offset if offset < limit else None
            found = block.find(RECORD_MAGIC, found + 1)
        # A header may begin in the last bytes of this block: the next look overlaps by one header.
        position = max(position + ALIGNMENT, _aligned(block_start + len(block) - RECORD_HEADER_BYTES + 1))
    return None


def _aligned(offset: int) -> int:
    return (offset + ALIGNMENT - 1) & -ALIGNMENT
