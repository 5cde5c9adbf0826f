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

**Compaction's files** appear under their name whole and durable; a start removes what is unfinished.
One that the index does not know completely (the process died before all entries were switched to it) is read
whole; the files that it replaces are still there then.  A sealed file that the index knows and no entry
points into is what a compaction was about to remove: a start removes it, before another compaction
takes it for gone.

**The index** is opened, and believed: its rows and counters change together.  It is verified while it is used
(every value has a checksum) and by the scrub.  When it is missing, damaged, condemned, never finished, or
speaks of files that are not there, a new one is made from all data files.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator

import msgspec

from fabric.chunk.copies import settled
from fabric.chunk.data_file import UNFINISHED_SUFFIX, BadSuperblock, DataFile, file_name, file_number
from fabric.chunk.file_table import FileTable
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

    files: FileTable
    index: Index
    totals: Totals
    quarantined: dict[int, tuple[int, int]]
    """fid -> (file, offset) of records that are known to be damaged."""
    notes: list[str]
    """What happened, for the log."""


def recover(
    disk: Disk,
    home: IndexHome,
    uuid: bytes,
    on_bytes: Callable[[int, int], object] = lambda done, total: None,
) -> Recovered:
    """Open a directory after whatever happened to it; an empty one too.

    ``on_bytes`` hears how many bytes of the data files are read, and how many are to be read.
    Raises ForeignFile, DiskFailed, NoSpace.
    """
    notes: list[str] = []
    files = _open_files(disk, uuid, notes)
    index, state = _open_index(home, files, notes)
    return _finish(_Recovery(disk, files, index, state.totals, notes, on_bytes), state)


def rebuild(
    disk: Disk,
    home: IndexHome,
    uuid: bytes,
    on_bytes: Callable[[int, int], object] = lambda done, total: None,
) -> Recovered:
    """Like ``recover``, but with a new index, whatever the old one is like.

    If the old one can be read it still proves which bytes of the newest file were once sound.
    """
    notes: list[str] = []
    files = _open_files(disk, uuid, notes)
    sound_to: dict[int, int] = {}
    try:
        old = home.open()
    except IndexLost as error:
        notes.append(error.message)
    else:
        try:
            sound_to = _ends(Totals(old.counters()))
        except IndexLost as error:
            notes.append(error.message)
        finally:
            old.close()
    state = _IndexState(Watermark(min(files, default=0), SUPERBLOCK_BYTES), Totals(), sound_to)
    return _finish(_Recovery(disk, files, home.create(), state.totals, notes, on_bytes), state)


def _finish(recovery: _Recovery, state: _IndexState) -> Recovered:
    recovery.read_tail(state.watermark, state.sound_to)
    state.totals.publish()
    numbers = {*recovery.files, *state.totals.files()}
    table = FileTable(recovery.files, max(numbers, default=0) + 1)
    return Recovered(table, recovery.index, state.totals, recovery.quarantined, recovery.notes)


def _open_files(disk: Disk, uuid: bytes, notes: list[str]) -> dict[int, DataFile]:
    names = disk.names()
    for name in names:
        if name.endswith(UNFINISHED_SUFFIX) and file_number(name.removesuffix(UNFINISHED_SUFFIX)) is not None:
            disk.remove(name)
    numbers = sorted(number for name in names if (number := file_number(name)) is not None)
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
    sound_to: dict[int, int]
    """File number -> a place before which everything was once on stable storage."""


def _open_index(home: IndexHome, files: dict[int, DataFile], notes: list[str]) -> tuple[Index, _IndexState]:
    index: Index | None = None
    try:
        index = home.open()
        return index, _read_index(index, files, notes)
    except IndexLost as error:
        if index is not None:
            index.close()
        if files:
            notes.append(f"{error.message}; rebuilding it from the data files")
    first = Watermark(min(files, default=0), SUPERBLOCK_BYTES)
    return home.create(), _IndexState(first, Totals(), {})


def _read_index(index: Index, files: dict[int, DataFile], notes: list[str]) -> _IndexState:
    """Raises IndexLost."""
    watermark = index.watermark()
    if watermark is None:
        raise IndexLost("the index was never finished")
    if watermark.file and watermark.file not in files:
        raise IndexLost(f"the index ends in {file_name(watermark.file)}, which is not there")
    totals = Totals(index.counters())
    for number, in_file in totals.files().items():
        if number not in files:
            if in_file.records:
                raise IndexLost(f"the index speaks of {file_name(number)}, which is not there")
            # Compaction was about to say so.
            totals.forget(number)
    return _IndexState(watermark, totals, _ends(totals))


def _ends(totals: Totals) -> dict[int, int]:
    """File number -> end of the last record that the index knows there."""
    return {number: in_file.end for number, in_file in totals.files().items()}


class _Recovery:
    """Brings the index up to the end of the data files."""

    def __init__(
        self,
        disk: Disk,
        files: dict[int, DataFile],
        index: Index,
        totals: Totals,
        notes: list[str],
        on_bytes: Callable[[int, int], object],
    ) -> None:
        self.files = files
        self.index = index
        self.notes = notes
        self.quarantined: dict[int, tuple[int, int]] = {}
        self._disk = disk
        self._totals = totals
        self._waiting: dict[int, Entry] = {}
        self._on_bytes = on_bytes
        self._read_bytes = 0
        self._total_bytes = 0
        appended = [number for number, data_file in files.items() if not data_file.is_compacted]
        self._active = files[max(appended)] if appended else None

    def read_tail(self, watermark: Watermark, sound_to: dict[int, int]) -> None:
        """Adopt everything that the index may not know, and move the watermark to the end."""
        starts = self._starts(watermark)
        self._total_bytes = sum(self.files[number].file.size() - start for number, start in starts.items())
        for number, data_file in sorted(self.files.items()):
            start = starts.get(number)
            if data_file is self._active:
                assert start is not None, "the watermark never passes the newest file"
                self._read_active(data_file, start, max(start, sound_to.get(number, 0)))
                continue
            data_file.end = data_file.file.size()
            if start is not None:
                self._adopt_all(scan(data_file, start, data_file.end), number)
            if data_file.is_compacted and not self._totals.file(number).complete:
                self._totals.complete(number)
        self._flush()
        end = Watermark(self._active.number, self._active.end) if self._active else Watermark(0, 0)
        self.index.checkpoint(end)
        self._remove_leftovers(starts.keys())

    def _remove_leftovers(self, read: Container[int]) -> None:
        """Finish what a compaction has left; what was just read is left to the next compaction."""
        leftovers = [
            number
            for number, data_file in self.files.items()
            if number not in read and data_file is not self._active and not self._totals.file(number).records
        ]
        for number in leftovers:
            self.files.pop(number).file.close()
            self._disk.remove(file_name(number))
            self._totals.forget(number)
            self.notes.append(f"removed {file_name(number)}: compaction had moved all that was in it")
        if leftovers:
            self._disk.sync_directory()

    def _starts(self, watermark: Watermark) -> dict[int, int]:
        """Where to begin in each file that must be read."""
        starts: dict[int, int] = {}
        for number, data_file in self.files.items():
            if data_file.is_compacted:
                if not self._totals.file(number).complete:
                    starts[number] = SUPERBLOCK_BYTES
            elif number >= watermark.file:
                starts[number] = watermark.offset if number == watermark.file else SUPERBLOCK_BYTES
        return starts

    def _read_active(self, data_file: DataFile, start: int, sound_to: int) -> None:
        kept = without_torn_end(scan(data_file, start, LOOKAHEAD_BYTES), sound_to)
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
            self._read_bytes += item.end - item.start
            self._on_bytes(self._read_bytes, self._total_bytes)
            if isinstance(item, Gap):
                self.notes.append(f"{file_name(file)}: damage from {item.start} to {item.end} skipped")
                continue
            end = item.header.end
            self._adopt(item, file)
            if len(self._waiting) >= PUT_COUNT:
                self._flush()
        return end

    def _adopt(self, found: Found, file: int) -> None:
        header = found.header
        fid = header.fid
        entry = Entry(file, header.offset, header.length, header.checksum, header.flags)
        old = self._waiting.get(fid) or self.index.get(fid)
        if not found.good:
            self.notes.append(f"{file_name(file)}: fragment {fid} at {header.offset} is damaged")
        new = settled(old, entry, good=found.good, old_is_good=fid not in self.quarantined)
        if (new.file, new.offset) == (entry.file, entry.offset):
            if found.good:
                self.quarantined.pop(fid, None)
            else:
                self.quarantined[fid] = (file, header.offset)
        if new != old:
            self._waiting[fid] = new
            self._totals.replace(fid, old, new)

    def _flush(self) -> None:
        self.index.put(list(self._waiting.items()), self._totals.take_changes())
        self._waiting.clear()


def without_torn_end(items: Iterator[Found | Gap], sound_to: int) -> Iterator[Found | Gap]:
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
