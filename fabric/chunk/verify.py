"""Reading all of a stopped server's data files against its index, and changing nothing.

Two passes, neither of which holds more than what it finds wrong: every record of every file, looked up in the
index; every entry of the index, looked up in its file, and counted.

A finding is *damage* when it can cost a fragment or hide a delete.  Some things look like it and are
not, so they are *notes*: a record that a newer one or a tombstone has replaced, records that the next start
will adopt because the index need not know them yet, and an unfinished write at the end of the newest file.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fabric.chunk.data_file import (
    UNFINISHED_SUFFIX,
    BadSuperblock,
    DataFile,
    ForeignFile,
    file_name,
    file_number,
)
from fabric.chunk.index import Counters, Entry, FileTotals, Index, IndexLost, Watermark, bucket_totals
from fabric.chunk.record import SUPERBLOCK_BYTES
from fabric.chunk.recovery import LOOKAHEAD_BYTES, without_torn_end
from fabric.chunk.scan import BLOCK_BYTES, Found, Gap, scan
from fabric.errors import BadChecksum, DiskFailed
from fabric.node.disk import Disk
from fabric.settings import BUCKETS


class Verified(msgspec.Struct):
    """What was read, and what is wrong with it."""

    files: int = 0
    records: int = 0
    """With a sound header."""
    fragments: int = 0
    tombstones: int = 0
    live_bytes: int = 0
    damage: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)


def verify(
    disk: Disk, index: Index | None, uuid: bytes, on_bytes: Callable[[int], object] = lambda count: None
) -> Verified:
    """Compare everything; without an index only the data files are read.

    ``on_bytes`` hears how many more bytes of records have been read.  Damage is in the answer, not raised.
    """
    work = _Verification(disk, index, uuid, on_bytes)
    try:
        work.read_counters()
        work.open_files()
        work.read_files()
        work.read_index()
    finally:
        work.close()
    return work.result


class _Verification:
    def __init__(
        self, disk: Disk, index: Index | None, uuid: bytes, on_bytes: Callable[[int], object]
    ) -> None:
        self._disk = disk
        self._index = index
        self._uuid = uuid
        self._on_bytes = on_bytes
        self._files: dict[int, DataFile] = {}
        self._watermark = Watermark(0, 0)
        self._counters = Counters()
        self.result = Verified()

    def close(self) -> None:
        for data_file in self._files.values():
            data_file.file.close()

    def read_counters(self) -> None:
        if self._index is None:
            return
        try:
            watermark = self._index.watermark()
            if watermark is None:
                raise IndexLost("the index was never finished")
            self._watermark = watermark
            self._counters = self._index.counters()
        except DiskFailed as error:
            self._lose_index(error)

    def _lose_index(self, error: DiskFailed) -> None:
        self.result.damage.append(error.message)
        self._index = None

    # --- the files --------------------------------------------------------------------------------

    def open_files(self) -> None:
        names = self._disk.names()
        for name in names:
            if name.endswith(UNFINISHED_SUFFIX) and file_number(name.removesuffix(UNFINISHED_SUFFIX)):
                self.result.notes.append(f"{name}: compaction had not finished; the next start removes it")
        numbers = sorted(number for name in names if (number := file_number(name)) is not None)
        for number in numbers:
            self.result.files += 1
            try:
                self._files[number] = DataFile.open(self._disk, number, self._uuid)
            except BadSuperblock as error:
                self._without_superblock(file_name(number), number == numbers[-1], error)
            except (ForeignFile, DiskFailed) as error:
                self.result.damage.append(error.message)

    def _without_superblock(self, name: str, newest: bool, error: BadSuperblock) -> None:
        file = self._disk.open(name)
        empty = newest and not any(file.pread(LOOKAHEAD_BYTES, SUPERBLOCK_BYTES))
        file.close()
        if empty:
            self.result.notes.append(f"{name}: its creation was not finished; the next start removes it")
        else:
            self.result.damage.append(error.message)

    def read_files(self) -> None:
        appended = [number for number, data_file in self._files.items() if not data_file.is_compacted]
        for number, data_file in self._files.items():
            try:
                self._read_records(data_file, bool(appended) and number == max(appended))
            except DiskFailed as error:
                self.result.damage.append(error.message)

    def _read_records(self, data_file: DataFile, active: bool) -> None:
        size = data_file.file.size()
        counted = self._counters.files.get(data_file.number) or FileTotals()
        sound_to = counted.end if active else size
        if data_file.number == self._watermark.file:
            sound_to = max(sound_to, self._watermark.offset)
        name = file_name(data_file.number)
        end = SUPERBLOCK_BYTES
        for item in without_torn_end(scan(data_file, end, size), sound_to):
            before, end = end, item.end
            self._on_bytes(end - before)
            if isinstance(item, Gap):
                self.result.damage.append(f"{name}: no sound record from {item.start} to {item.end}")
            else:
                self._judge(data_file, item)
        if active and end < sound_to:
            self.result.damage.append(f"{name}: no sound record from {end} to {sound_to}")
        elif end_of_bytes(data_file, end, size) > end:
            text = f"{name}: bytes behind the last record, from {end} on"
            if active:
                self.result.notes.append(f"{text}: an unfinished write; the next start cuts it off")
            else:
                self.result.damage.append(text)

    def _judge(self, data_file: DataFile, found: Found) -> None:
        """Hold one record against its entry."""
        header, place = found.header, f"at {found.header.offset} of {file_name(data_file.number)}"
        self.result.records += 1
        entry = self._get(header.fid)
        is_here = entry is not None and (entry.file, entry.offset) == (data_file.number, header.offset)
        if not found.good and (entry is None or is_here):
            self.result.damage.append(f"fragment {header.fid}: payload {place} is damaged")
        elif not found.good:
            self.result.notes.append(
                f"fragment {header.fid}: payload {place} is damaged, and was replaced or deleted"
            )
        if self._index is None or is_here:
            return
        if entry is not None and (entry.is_tombstone or not header.is_tombstone):
            return
        if entry is None and header.is_tombstone:
            return  # It is needed no more, and forgotten.
        kind = "tombstone" if header.is_tombstone else "record"
        text = f"fragment {header.fid}: its {kind} {place} is not in the index"
        if self._is_pending(data_file, header.offset):
            self.result.notes.append(f"{text} yet; the next start adopts it")
        else:
            self.result.damage.append(text)

    def _get(self, fid: int) -> Entry | None:
        if self._index is None:
            return None
        try:
            return self._index.get(fid)
        except DiskFailed as error:
            self._lose_index(error)
            return None

    def _is_pending(self, data_file: DataFile, offset: int) -> bool:
        if data_file.is_compacted:
            counted = self._counters.files.get(data_file.number)
            return counted is None or not counted.complete
        return Watermark(data_file.number, offset) >= self._watermark

    # --- the index --------------------------------------------------------------------------------

    def read_index(self) -> None:
        """Look up and count every entry."""
        found: dict[int, FileTotals] = {}
        try:
            for bucket in range(BUCKETS):
                if self._index is None:
                    return
                self._index.verify_bucket(bucket)
                rows = list(self._index.scan_bucket(bucket, None))
                totals = bucket_totals(rows)
                self.result.fragments += totals.fragments
                self.result.live_bytes += totals.live_bytes
                self.result.tombstones += len(rows) - totals.fragments
                for fid, entry in rows:
                    self._judge_entry(fid, entry)
                    in_file = found.get(entry.file, FileTotals())
                    found[entry.file] = FileTotals(
                        in_file.records + 1, in_file.record_bytes + entry.record_bytes
                    )
        except DiskFailed as error:
            self._lose_index(error)
            return
        self._compare_counts(found)

    def _judge_entry(self, fid: int, entry: Entry) -> None:
        place = f"{entry.offset} of {file_name(entry.file)}"
        data_file = self._files.get(entry.file)
        text = f"fragment {fid}: the index points at {place}, where its record is not"
        if data_file is None:
            self.result.damage.append(text)
            return
        try:
            data_file.read_header(fid, entry.offset, entry.length, entry.checksum)
        except (BadChecksum, DiskFailed):
            self.result.damage.append(text)

    def _compare_counts(self, found: dict[int, FileTotals]) -> None:
        for number in sorted({*found, *self._counters.files}):
            has = found.get(number, FileTotals())
            counted = self._counters.files.get(number) or FileTotals()
            if (has.records, has.record_bytes) != (counted.records, counted.record_bytes):
                self.result.damage.append(
                    f"{file_name(number)}: {has.records} entries with {has.record_bytes} bytes point there; "
                    f"counted are {counted.records} with {counted.record_bytes}"
                )


def end_of_bytes(data_file: DataFile, start: int, end: int) -> int:
    """Behind the last byte between ``start`` and ``end`` that is not zero; ``start`` when all are."""
    found = start
    for position in range(start, end, BLOCK_BYTES):
        block = data_file.file.pread(min(BLOCK_BYTES, end - position), position).rstrip(b"\0")
        if block:
            found = position + len(block)
    return found
