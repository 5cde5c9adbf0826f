"""What compaction must keep of the files that it replaces, one record after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import xxhash

from fabric.chunk.copies import is_needed
from fabric.chunk.data_file import DataFile
from fabric.chunk.index import Entry
from fabric.chunk.record import RECORD_HEADER_BYTES, SUPERBLOCK_BYTES, TOMBSTONE, RecordHeader
from fabric.chunk.recovery import Recovered
from fabric.chunk.scan import Found, Gap, scan_headers

NOTHING = memoryview(b"")


class Piece(msgspec.Struct, frozen=True):
    """A record to copy: header and payload as they are."""

    header: RecordHeader
    payload: memoryview


class Look(msgspec.Struct, frozen=True):
    """What was looked at: ``further_bytes`` of the files."""

    further_bytes: int
    piece: Piece | None = None
    """Set when the record must be kept."""
    dropped_fid: int | None = None
    """Set when it is a tombstone that is needed no more once its file is gone."""
    is_gap: bool = False
    """No record could be read here; entries may still point at it."""


class CompactionSource:
    """Reads the files; decides by their entries, as these are at that moment."""

    def __init__(self, state: Recovered, *, tombstone_keep_s: float, wall_ms: Callable[[], int]) -> None:
        self._files = state.files
        self._index = state.index
        self._totals = state.totals
        self._quarantined = state.quarantined
        self._keep_ms = int(tombstone_keep_s * 1000)
        self._wall_ms = wall_ms

    def from_files(self, numbers: list[int]) -> Iterator[Look]:
        """All records of these sealed files, in order.  Raises IndexLost, DiskFailed."""
        for number in numbers:
            data_file = self._files.get(number)
            assert data_file is not None, "only compaction takes files out"
            if not self._totals.file(number).records:
                continue
            end = SUPERBLOCK_BYTES
            for found in scan_headers(data_file, SUPERBLOCK_BYTES):
                end = found.end
                yield self._look(data_file, found)
            if end < data_file.end:
                yield Look(data_file.end - end, is_gap=True)

    def from_index(self, numbers: list[int]) -> Iterator[Look]:
        """All that entries still point at in these files, readable or not.  Raises IndexLost, DiskFailed."""
        for fid, entry in self._index.scan():
            data_file = self._files.get(entry.file) if entry.file in numbers else None
            if data_file is None:
                yield Look(0)
                continue
            header = RecordHeader(
                fid=fid,
                offset=entry.offset,
                checksum=entry.checksum,
                # What the lost header said of epoch and group, nothing reads any more.
                epoch=0,
                time_ms=self._wall_ms(),
                batch=0,
                group=0,
                length=entry.length,
                flags=entry.flags & TOMBSTONE,
            )
            yield Look(entry.record_bytes, self._piece(data_file, header))

    def _look(self, data_file: DataFile, found: Found | Gap) -> Look:
        further_bytes = found.end - found.start
        if isinstance(found, Gap):
            return Look(further_bytes, is_gap=True)
        header = found.header
        entry = self._index.get(header.fid)
        if entry is None or (entry.file, entry.offset) != (data_file.number, header.offset):
            return Look(further_bytes)
        if entry.is_tombstone and self._is_needless(entry, header):
            return Look(further_bytes, dropped_fid=header.fid)
        return Look(further_bytes, self._piece(data_file, header))

    def _is_needless(self, tombstone: Entry, header: RecordHeader) -> bool:
        """Needed no more once its file is gone, with all that this file holds.

        Another file that goes at the same time does not count: a crash may leave just that one.
        """
        if self._wall_ms() - header.time_ms < self._keep_ms:
            return False
        return not is_needed(tombstone, [file for file in self._files.numbers() if file != tombstone.file])

    def _piece(self, data_file: DataFile, header: RecordHeader) -> Piece:
        """A damaged payload is taken as it is: a copy of it is as easily noticed, and not forgotten."""
        if header.is_tombstone:
            return Piece(header, NOTHING)
        length = RECORD_HEADER_BYTES + header.length
        data = data_file.pread(length, header.offset).ljust(length, b"\0")
        payload = memoryview(data)[RECORD_HEADER_BYTES:]
        if xxhash.xxh3_64_intdigest(payload) != header.checksum:
            self._quarantined[header.fid] = (data_file.number, header.offset)
        return Piece(header, payload)
