"""From what a crash left on the disk to files and an index that agree.

**What is known.**  A record was on stable storage before its index entry was written, and an index entry
or the watermark may itself be lost.  So: every entry that the index holds is right about the data files
(or the disk has damaged them since); records at or behind the watermark may lack their entry.

**Torn or rotten?**  Behind the last finished write there may be any part of one unfinished write, at most
``BATCH_BYTES_MAX``.  Damage is rot, and skipped, if anything proves that its place was once sound: the
watermark or an index entry lies behind it, or a record whose ``batch`` begins behind it, or a later file.
Without a proof it is the unfinished write: nothing in it was acknowledged, and the file is cut
there so that no leftover of it is ever found.

**Counting only what is durable.**  The kept records behind the watermark are written once more over
themselves and synced: after a failed ``fdatasync`` reads may show bytes that no disk holds.  Only
then the watermark moves past them.  For the same reason the directory is synced first.

**The index** is opened, and verified whole; when it is missing, damaged, never finished, or speaks of
files that are not there, a new one is made from all data files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from fabric.chunk.data_file import BadSuperblock, DataFile, file_name, file_number
from fabric.chunk.index import Entry, Index, IndexHome, IndexLost, Watermark
from fabric.chunk.jobs import BATCH_BYTES_MAX
from fabric.chunk.record import SUPERBLOCK_BYTES
from fabric.chunk.scan import BLOCK_BYTES, Found, Gap, scan
from fabric.chunk.totals import Totals
from fabric.node.disk import Disk

LOOKAHEAD_BYTES = 2 * BATCH_BYTES_MAX
"""Looked through behind the last record of the newest file, for a proof that it is not the last."""
PUT_COUNT = 1000
DAMAGED_SUFFIX = ".damaged"

assert LOOKAHEAD_BYTES >= BATCH_BYTES_MAX + BLOCK_BYTES


class Recovered(msgspec.Struct):
    """What the engine starts from."""

    files: dict[int, DataFile]
    active: DataFile | None
    """The newest file, to append to; None when there is none."""
    index: Index
    totals: Totals
    quarantined: dict[int, tuple[int, int]]
    """fid -> (file, offset) of records that are known to be damaged."""
    notes: list[str]
    """What happened, for the log."""


def recover(disk: Disk, home: IndexHome, uuid: bytes) -> Recovered:
    """Open a directory after whatever happened to it; an empty one too.

    Raises ForeignFile, DiskFailed, NoSpace.
    """
    notes: list[str] = []
    files = _open_files(disk, uuid, notes)
    index, state = _open_index(home, files, notes)
    recovery = _Recovery(files, index, state.totals, notes)
    recovery.read_tail(state.watermark, state.indexed_to)
    state.totals.publish()
    return Recovered(files, recovery.active, index, state.totals, recovery.quarantined, notes)


def _open_files(disk: Disk, uuid: bytes, notes: list[str]) -> dict[int, DataFile]:
    numbers = sorted(number for name in disk.names() if (number := file_number(name)) is not None)
    files: dict[int, DataFile] = {}
    for number in numbers:
        try:
            files[number] = DataFile.open(disk, number, uuid)
        except BadSuperblock as error:
            _put_aside(disk, number, number == numbers[-1], error, notes)
    # A process that was killed may have left a name that is not on stable storage yet.
    disk.sync_directory()
    return files


def _put_aside(disk: Disk, number: int, newest: bool, error: BadSuperblock, notes: list[str]) -> None:
    """Remove the newest file if its creation was cut short; keep any other under another name."""
    name = file_name(number)
    file = disk.open(name)
    empty = newest and not any(file.pread(LOOKAHEAD_BYTES, SUPERBLOCK_BYTES))
    file.close()
    if empty:
        disk.remove(name)
        notes.append(f"removed {name}: its creation was not finished")
    else:
        disk.rename(name, name + DAMAGED_SUFFIX)
        notes.append(f"{error.message}: put aside as {name}{DAMAGED_SUFFIX}")


class _IndexState(msgspec.Struct):
    watermark: Watermark
    totals: Totals
    indexed_to: dict[int, int]
    """File number -> end of the last record that the index knows there."""


def _open_index(home: IndexHome, files: dict[int, DataFile], notes: list[str]) -> tuple[Index, _IndexState]:
    index: Index | None = None
    try:
        index = home.open()
        return index, _read_index(index, files)
    except IndexLost as error:
        if index is not None:
            index.close()
        if files:
            notes.append(f"{error.message}; rebuilding it from the data files")
    first = Watermark(min(files, default=0), SUPERBLOCK_BYTES)
    return home.create(), _IndexState(first, Totals(), {})


def _read_index(index: Index, files: dict[int, DataFile]) -> _IndexState:
    """Verify all of it.  Raises IndexLost."""
    watermark = index.watermark()
    if watermark is None:
        raise IndexLost("the index was never finished")
    if watermark.file and watermark.file not in files:
        raise IndexLost(f"the index ends in {file_name(watermark.file)}, which is not there")
    totals = Totals()
    indexed_to = {watermark.file: watermark.offset}
    for fid, entry in index.scan():
        if entry.file not in files:
            raise IndexLost(f"the index speaks of {file_name(entry.file)}, which is not there")
        totals.replace(fid, None, entry)
        if entry.end > indexed_to.get(entry.file, 0):
            indexed_to[entry.file] = entry.end
    return _IndexState(watermark, totals, indexed_to)


class _Recovery:
    """Brings the index up to the end of the data files."""

    def __init__(self, files: dict[int, DataFile], index: Index, totals: Totals, notes: list[str]) -> None:
        self._files = files
        self._index = index
        self._totals = totals
        self._notes = notes
        self._waiting: dict[int, Entry] = {}
        self.quarantined: dict[int, tuple[int, int]] = {}
        self.active = files[max(files)] if files else None

    def read_tail(self, watermark: Watermark, indexed_to: dict[int, int]) -> None:
        """Adopt everything from the watermark on, and move it to the end."""
        for number in sorted(number for number in self._files if number >= watermark.file):
            data_file = self._files[number]
            start = watermark.offset if number == watermark.file else SUPERBLOCK_BYTES
            if data_file is not self.active:
                self._adopt_all(scan(data_file, start, data_file.file.size()), number)
                continue
            self._read_active(data_file, start, max(start, indexed_to.get(number, 0)))
        self._flush()
        end = Watermark(self.active.number, self.active.end) if self.active else Watermark(0, 0)
        self._index.checkpoint(end)

    def _read_active(self, data_file: DataFile, start: int, sound_to: int) -> None:
        kept = _without_torn_end(scan(data_file, start, LOOKAHEAD_BYTES), sound_to)
        end = self._adopt_all(kept, data_file.number)
        # If bytes that were once sound are gone from the end, new ones must not take their place: the index
        # still speaks of it.
        data_file.end = max(end, sound_to)
        data_file.cut()
        # While the watermark has not reached this file, not even its superblock is known to be on the disk.
        data_file.rewrite(0 if start == SUPERBLOCK_BYTES else start, BLOCK_BYTES)

    def _adopt_all(self, items: Iterable[Found | Gap], file: int) -> int:
        """Put what was found into the index; returns where the last record ends."""
        end = SUPERBLOCK_BYTES
        for item in items:
            if isinstance(item, Gap):
                self._notes.append(f"{file_name(file)}: damage from {item.start} to {item.end} skipped")
                continue
            end = item.header.end
            self._adopt(item, file)
            if len(self._waiting) >= PUT_COUNT:
                self._flush()
        return end

    def _adopt(self, found: Found, file: int) -> None:
        header = found.header
        entry = Entry(file, header.offset, header.length, header.checksum, header.flags)
        old = self._waiting.get(header.fid) or self._index.get(header.fid)
        if not found.good:
            self._notes.append(f"{file_name(file)}: fragment {header.fid} at {header.offset} is damaged")
        if old is not None and not self._supersedes(entry, found.good, header.fid, old):
            return
        self._waiting[header.fid] = entry
        self._totals.replace(header.fid, old, entry)
        if found.good:
            self.quarantined.pop(header.fid, None)
        else:
            self.quarantined[header.fid] = (file, header.offset)

    def _supersedes(self, entry: Entry, good: bool, fid: int, old: Entry) -> bool:
        """A tombstone is for ever; among copies of the same bytes the newest good one counts."""
        if old.is_tombstone:
            return False
        if entry.is_tombstone:
            return True
        if (entry.file, entry.offset) == (old.file, old.offset):
            return True
        same = (entry.length, entry.checksum) == (old.length, old.checksum)
        return same and (good or fid in self.quarantined)

    def _flush(self) -> None:
        if self._waiting:
            self._index.put(list(self._waiting.items()))
            self._waiting.clear()


def _without_torn_end(items: Iterator[Found | Gap], sound_to: int) -> Iterator[Found | Gap]:
    """What was found, up to the first damage that nothing proves to have been sound.

    ``sound_to``: everything before it was once on stable storage.
    """
    doubtful: list[Found | Gap] = []
    """Damage without a proof yet, and what follows it."""
    for item in items:
        if isinstance(item, Found):
            sound_to = max(sound_to, item.header.batch)
        doubtful.append(item)
        while doubtful and (_is_sound(doubtful[0]) or doubtful[0].start < sound_to):
            yield doubtful.pop(0)


def _is_sound(item: Found | Gap) -> bool:
    return isinstance(item, Found) and item.good
