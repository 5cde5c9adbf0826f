"""Reading all of a stopped server's data files against its index, and changing nothing.

Two passes, neither of which holds more than what it finds wrong and the fids of what the next start will
adopt.  The first reads every record of every file, in the order of the disk, and looks it up in the index.
The second walks the index and recounts it.  If as many entries point into a file as records of it were
found where an entry says, every entry is right; only where the numbers differ a third pass looks up entry
by entry.

A finding is *damage* when it can cost a fragment or hide a delete, or when a copy of what tells records is
gone.  Some things look like it and are not, so they are *notes*: a record that a newer one or a tombstone
has replaced, damage that no entry points into, records that the next start will adopt because the index
need not know them yet, what an interrupted compaction has left, and an unfinished write at the end of the
newest file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from fabric.chunk.data_file import (
    UNFINISHED_SUFFIX,
    BadSuperblock,
    DataFile,
    file_name,
    file_number,
)
from fabric.chunk.index import (
    Counters,
    Entry,
    FileTotals,
    Index,
    IndexLost,
    Watermark,
)
from fabric.chunk.record import SUPERBLOCK_BYTES, RecordHeader
from fabric.chunk.recount import Recount
from fabric.chunk.recovery import DAMAGED_SUFFIX, LOOKAHEAD_BYTES, without_torn_end
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

    ``on_bytes`` hears how many more bytes of the data files are done.  Damage is in the answer, not raised.
    Raises ForeignFile: this program cannot judge what is not this server's or of another version.
    """
    work = _Verification(disk, index, uuid, on_bytes)
    try:
        work.read_counters()
        work.open_files()
        work.read_files()
        work.read_index()
        work.judge_suspects()
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
        self._matched: dict[int, int] = {}
        """File number -> how many of its records are just where and what an entry says."""
        self._unread: set[int] = set()
        """Files that could not be read to their end."""
        self._suspects: dict[int, list[str]] = {}
        """Fids of which a bad copy was found, and where."""
        self._adoptable: set[int] = set()
        """Fids of which a good record was found that the index need not know yet."""
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
            self._damage(error.message)
            self._index = None

    def _damage(self, text: str) -> None:
        # A place of the index that cannot be read is met by many.
        if self.result.damage[-1:] != [text]:
            self.result.damage.append(text)

    def _note(self, text: str) -> None:
        self.result.notes.append(text)

    # --- the files --------------------------------------------------------------------------------

    def open_files(self) -> None:
        names = self._disk.names()
        for name in names:
            if name.endswith(UNFINISHED_SUFFIX) and file_number(name.removesuffix(UNFINISHED_SUFFIX)):
                self._note(f"{name}: compaction had not finished; the next start removes it")
            if name.endswith(DAMAGED_SUFFIX) and file_number(name.removesuffix(DAMAGED_SUFFIX)):
                self._note(f"{name}: put aside by an earlier start, and not read")
        numbers = sorted(number for name in names if (number := file_number(name)) is not None)
        for number in numbers:
            self.result.files += 1
            try:
                data_file = self._files[number] = DataFile.open(self._disk, number, self._uuid)
                block = data_file.file.pread(SUPERBLOCK_BYTES, 0)
            except BadSuperblock as error:
                self._without_superblock(file_name(number), number == numbers[-1], error)
                continue
            except DiskFailed as error:
                self._damage(error.message)
                continue
            if block[: SUPERBLOCK_BYTES // 2] != block[SUPERBLOCK_BYTES // 2 :]:
                text = f"{file_name(number)}: one of the two copies of its superblock is damaged"
                # A file that was being created may have lost a part of the write.
                (self._note if self._is_pending(data_file, SUPERBLOCK_BYTES) else self._damage)(text)

    def _without_superblock(self, name: str, newest: bool, error: BadSuperblock) -> None:
        file = self._disk.open(name)
        empty = newest and not any(file.pread(LOOKAHEAD_BYTES, SUPERBLOCK_BYTES))
        file.close()
        if empty:
            self._note(f"{name}: its creation was not finished; the next start removes it")
        else:
            self._damage(error.message)

    def read_files(self) -> None:
        appended = [number for number, data_file in self._files.items() if not data_file.is_compacted]
        for number, data_file in self._files.items():
            active = bool(appended) and number == max(appended)
            if not active and self._is_leftover(data_file):
                self._note(
                    f"{file_name(number)}: compaction had moved all that was in it; a start removes it"
                )
                continue
            try:
                self._read_records(data_file, active)
            except DiskFailed as error:
                self._damage(error.message)
                self._unread.add(number)

    def _is_leftover(self, data_file: DataFile) -> bool:
        """No entry points into it, and a start does not read it but removes it."""
        if self._index is None or self._is_pending(data_file, SUPERBLOCK_BYTES):
            return False
        return not self._count_of(data_file.number).records

    def _count_of(self, number: int) -> FileTotals:
        return self._counters.files.get(number) or FileTotals()

    def _read_records(self, data_file: DataFile, active: bool) -> None:
        size = data_file.file.size()
        sound_to = self._count_of(data_file.number).end if active else size
        if data_file.number == self._watermark.file:
            sound_to = max(sound_to, self._watermark.offset)
        end = SUPERBLOCK_BYTES
        for item in without_torn_end(scan(data_file, end, size), sound_to):
            before, end = end, item.end
            self._on_bytes(end - before)
            if isinstance(item, Gap):
                self._judge_gap(data_file, item.start, item.end)
            else:
                self._judge(data_file, item)
        self._on_bytes(size - end)
        behind = end_of_bytes(data_file, end, size)
        if active and end < sound_to:
            self._judge_gap(data_file, end, sound_to)
        elif active and behind > end:
            text = f"{file_name(data_file.number)}: bytes behind the last record, from {end} on"
            self._note(f"{text}: an unfinished write; the next start cuts it off")
        elif behind > end:
            self._judge_gap(data_file, end, behind)

    def _judge_gap(self, data_file: DataFile, start: int, end: int) -> None:
        """Below the watermark entries say what was there, and each of them is held against its record."""
        text = f"{file_name(data_file.number)}: no sound record from {start} to {end}"
        if self._index is None or self._is_pending(data_file, start):
            self._damage(text)
        else:
            self._note(text)

    def _judge(self, data_file: DataFile, found: Found) -> None:
        """Hold one record against its entry."""
        header, place = found.header, f"at {found.header.offset} of {file_name(data_file.number)}"
        self.result.records += 1
        is_known, entry = self._look_up(header.fid)
        is_here = entry is not None and (entry.file, entry.offset) == (data_file.number, header.offset)
        if entry is not None and is_here and _says(entry, header):
            self._matched[data_file.number] = self._matched.get(data_file.number, 0) + 1
        if not found.good:
            text = f"fragment {header.fid}: payload {place} is damaged"
            if entry is None or is_here:
                self._suspect(header.fid, text)
            else:
                self._note(f"{text}, and was replaced or deleted")
        if not is_known and found.good and header.fid in self._suspects:
            self._adoptable.add(header.fid)
        if not is_known or is_here:
            return
        if entry is not None and (entry.is_tombstone or not header.is_tombstone):
            same_kind = header.is_tombstone == entry.is_tombstone
            if found.good and same_kind and self._is_pending(data_file, header.offset):
                self._adoptable.add(header.fid)
            return
        if entry is None and header.is_tombstone:
            return  # It is needed no more, and forgotten; one that was lost is missed by the file's counters.
        kind = "tombstone" if header.is_tombstone else "record"
        text = f"fragment {header.fid}: its {kind} {place} is not in the index"
        if self._is_pending(data_file, header.offset):
            self._note(f"{text} yet; the next start adopts it")
            if found.good:
                self._adoptable.add(header.fid)
        else:
            self._damage(text)

    def _look_up(self, fid: int) -> tuple[bool, Entry | None]:
        """Whether the index could be asked, and its answer."""
        if self._index is None:
            return False, None
        try:
            return True, self._index.get(fid)
        except DiskFailed as error:
            self._damage(error.message)
            return False, None

    def _is_pending(self, data_file: DataFile, offset: int) -> bool:
        """Whether the next start reads this place, since the index need not know what is there."""
        if data_file.is_compacted:
            return not self._count_of(data_file.number).complete
        return Watermark(data_file.number, offset) >= self._watermark

    # --- the index --------------------------------------------------------------------------------

    def read_index(self) -> None:
        """Count every entry, and look up those that cannot all be right."""
        if self._index is None:
            return
        recount = Recount(self._index, self._counters)
        for text in recount.differences():
            self._damage(text)
        result = self.result
        result.fragments, result.live_bytes = recount.fragments, recount.live_bytes
        result.tombstones = recount.tombstones
        wrong = {
            number for number, has in recount.files.items() if has.records != self._matched.get(number, 0)
        }
        for bucket in range(BUCKETS) if wrong else ():
            self._judge_bucket(self._index.scan_bucket(bucket, None), wrong)

    def _judge_bucket(self, rows: Iterator[tuple[int, Entry]], files: set[int]) -> None:
        try:
            for fid, entry in rows:
                if entry.file in files and not self._is_right(fid, entry):
                    place = f"{entry.offset} of {file_name(entry.file)}"
                    text = f"fragment {fid}: the index points at {place}, where its record is not"
                    self._suspect(fid, text)
        except DiskFailed as error:
            self._damage(error.message)

    def _suspect(self, fid: int, text: str) -> None:
        self._suspects.setdefault(fid, []).append(text)

    def judge_suspects(self) -> None:
        """A bad copy is no damage when the next start takes a good one in its place."""
        for fid, texts in self._suspects.items():
            for text in texts:
                if fid in self._adoptable:
                    self._note(f"{text}; the next start takes another record in its place")
                else:
                    self._damage(text)

    def _is_right(self, fid: int, entry: Entry) -> bool:
        data_file = self._files.get(entry.file)
        if data_file is None:
            return False
        try:
            header = data_file.read_header(fid, entry.offset, entry.length, entry.checksum)
            if entry.file in self._unread and not entry.is_tombstone:
                data_file.read(fid, entry.offset, entry.length, entry.checksum)
        except (BadChecksum, DiskFailed):
            return False
        return _says(entry, header)


def _says(entry: Entry, header: RecordHeader) -> bool:
    """Whether an entry tells of a record what its header tells."""
    return (entry.length, entry.checksum, entry.is_tombstone) == (
        header.length,
        header.checksum,
        header.is_tombstone,
    )


def end_of_bytes(data_file: DataFile, start: int, end: int) -> int:
    """Behind the last byte between ``start`` and ``end`` that is not zero; ``start`` when all are."""
    found = start
    for position in range(start, end, BLOCK_BYTES):
        block = data_file.file.pread(min(BLOCK_BYTES, end - position), position).rstrip(b"\0")
        if block:
            found = position + len(block)
    return found
