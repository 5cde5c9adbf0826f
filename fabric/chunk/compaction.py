"""Compaction: the live records of sealed data files move into a new one, and the old ones go.

The steps, each of which may be the last one before a crash:

    copy    (background)  slices of live records into NUMBER.data.new, each synced
                          at the end: cut, renamed to NUMBER.data, directory synced
    switch  (write)       slices of the new file's records: each entry that still points into an old file
                          points into the new one; the last slice ends with a checkpoint of the index
    remove  (background)  the old files, directory synced
    forget  (write)       their counters

**Why nothing is lost.**  An old file goes only after the index that no longer needs it is durable, and its
replacement was durable before.  Until then both are there, and a start understands every mixture: an
unfinished name is removed, a file that is not completely switched is read whole.

**Beside a writer.**  Entries change on the write lane only.  A fragment that was deleted or repaired after it
was copied has another entry when its switch comes, and keeps it; its entry then remembers that the new file
holds a copy.  A reader that holds an old entry still has the old file open.

**What is not copied:** records without an entry that points at them, and tombstones that nothing needs
any more (see ``copies``).  A damaged record is copied as it is: what should be here must not be forgotten.
Entries that point where no header can be read are found in the index, in a second run.
"""

from __future__ import annotations

import contextlib
import random
from array import array
from collections.abc import Callable, Container, Iterator
from itertools import islice

import msgspec

from fabric.chunk.compaction_plan import Candidate, choose
from fabric.chunk.compaction_source import CompactionSource, Look, Piece
from fabric.chunk.copies import holding, replacing
from fabric.chunk.data_file import UNFINISHED_SUFFIX, DataFile, file_name
from fabric.chunk.index import MANY, Entry, IndexLost
from fabric.chunk.jobs import CompactFollow, CompactionStatus, CompactJob
from fabric.chunk.record import (
    ALIGNMENT,
    COMPACTED,
    PADDING,
    RECORD_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    RecordHeader,
    Superblock,
    encode_header,
)
from fabric.chunk.recovery import Recovered
from fabric.chunk.scan import Found, Gap, scan_headers
from fabric.chunk.writer import Change, Writer
from fabric.errors import DiskFailed, NoSpace
from fabric.node.disk import Buffer, Disk
from fabric.settings import MIB, UPKEEP_RECORD_BYTES, Settings

SWITCH_COUNT = 64
"""Entries switched in one job of the write lane: about a millisecond."""
WRITE_SLICES = 8
WRITE_BUFFERS = 768
"""The bytes of so many slices, or so many buffers, go into one write and sync: few syncs, small slices."""
ROOM_BYTES = 16 * MIB
"""Left alone on a full disk: for tombstones and the index."""
SEAL_SHARE = 16
"""The active file is sealed when a sixteenth of the largest size, and enough of the file, is garbage."""
SKIPPED_RECORD_BYTES = UPKEEP_RECORD_BYTES // 16
"""What a record costs that is only looked at."""
SEAL, SWITCH, REMOVE, FORGET = "seal", "switch", "remove", "forget"


class _Run(msgspec.Struct):
    """One compaction."""

    victims: list[int]
    """Numbers of the files to replace."""
    total_bytes: int
    source: Iterator[Look]
    read_bytes: int = 0
    output: DataFile | None = None
    """None while nothing was found that must be kept."""
    dropped: array[int] = msgspec.field(default_factory=lambda: array("Q"))
    """Fids of tombstones that were left out."""
    has_gaps: bool = False
    """Entries may still point into the victims when all that could be read is switched."""
    waiting: list[Buffer] = msgspec.field(default_factory=list)
    """Records that are not written yet."""
    waiting_bytes: int = 0
    switching: Iterator[Found | Gap] | None = None
    """Walks over the output."""


class Compaction:
    """Does one compaction after the other.  ``copy`` and ``follow`` are never called at the same time."""

    def __init__(
        self,
        disk: Disk,
        state: Recovered,
        writer: Writer,
        *,
        uuid: bytes,
        settings: Settings,
        rng: random.Random,
        wall_ms: Callable[[], int],
    ) -> None:
        self._disk = disk
        self._files = state.files
        self._index = state.index
        self._totals = state.totals
        self._quarantined = state.quarantined
        self._writer = writer
        self._uuid = uuid
        self._settings = settings
        self._rng = rng
        self._wall_ms = wall_ms
        self._source = CompactionSource(state, tombstone_keep_s=settings.tombstone_keep_s, wall_ms=wall_ms)
        self._run: _Run | None = None
        self._ordered_to: int | None = None
        """The newest file when all garbage was asked for: what becomes garbage later does not prolong it."""
        self._cannot_seal = False
        """Sealing has just failed: try it again when asked anew, and not at once."""
        self._unreadable: set[int] = set()
        """Files that could not be compacted; tried again after a restart."""
        self._again: list[int] = []
        """Files whose remaining entries must be looked up in the index."""
        self._has_leftovers = False
        """Files were to be removed and may still be there: the next start removes them."""
        self._freed_bytes = 0
        self._finished = 0
        self._problem = ""
        self.failed = ""
        """Set when the disk failed: reason to be read-only."""

    def status(self) -> CompactionStatus:
        """What is going on."""
        run = self._run
        return CompactionStatus(
            running=run is not None,
            files=list(run.victims) if run is not None else [],
            progress=min(1.0, run.read_bytes / max(1, run.total_bytes)) if run is not None else 0.0,
            freed_bytes=self._freed_bytes,
            finished=self._finished,
            problem=self._problem,
        )

    # --- on the background lane -------------------------------------------------------------------

    def copy(self, job: CompactJob) -> tuple[int, CompactFollow | None, bool]:
        """Copy a slice.  Returns what it cost in bytes, what must follow, whether nothing is to be done.

        Raises IndexLost.
        """
        run = self._run
        try:
            if run is None:
                if job.all_garbage and self._ordered_to is None:
                    self._ordered_to = max(self._files.numbers(), default=0)
                if self._should_seal(job.all_garbage):
                    return 0, CompactFollow("write", SEAL), False
                self._cannot_seal = False
                run = self._run = self._begin(job.all_garbage)
            if run is None:
                self._ordered_to = None
                return 0, None, True
            return self._copy(run, job.bytes_max)
        except IndexLost:
            raise
        except (NoSpace, DiskFailed) as error:
            self._give_up(run, error)
            return 0, None, True

    def follow(self, step: str) -> CompactFollow | None:
        """Do a step other than copying, on the lane that it was for; returns the next one.

        Raises IndexLost.
        """
        run = self._run
        try:
            if step == SEAL:
                self._writer.seal()
                return None
            assert run is not None, f"{step} without a compaction"
            if step == SWITCH:
                return self._switch(run)
            if step == REMOVE:
                return self._remove(run)
            assert step == FORGET
            self._forget(run)
            return None
        except IndexLost:
            raise
        except (NoSpace, DiskFailed) as error:
            # Every step is safe to leave undone; the next start finds what is left.
            self._problem = error.message
            if isinstance(error, DiskFailed):
                self.failed = error.message
            self._unreadable.update(run.victims if run is not None else ())
            self._cannot_seal = step == SEAL
            self._has_leftovers = self._has_leftovers or step == REMOVE
            self._run = None
            return None

    # --- choosing ---------------------------------------------------------------------------------

    def _should_seal(self, all_garbage: bool) -> bool:
        """Whether the active file has so much garbage that it is worth to append to a new one."""
        active = self._files.active
        if active is None or self._writer.failed or self._cannot_seal or self._has_leftovers:
            return False
        candidate = self._candidate(active)
        if all_garbage:
            return candidate.garbage_bytes > 0 and self._is_ordered(active.number)
        enough = self._settings.data_file_bytes_max // SEAL_SHARE
        ratio = self._settings.compaction_garbage_ratio
        return candidate.garbage_bytes >= enough and candidate.garbage_ratio >= ratio

    def _is_ordered(self, number: int) -> bool:
        return self._ordered_to is not None and number <= self._ordered_to

    def _candidate(self, data_file: DataFile) -> Candidate:
        live_bytes = self._totals.file(data_file.number).record_bytes
        return Candidate(data_file.number, data_file.data_bytes, live_bytes)

    def _begin(self, all_garbage: bool) -> _Run | None:
        # Entries speak of removed files as gone already; nothing may be dropped on their word until they are.
        if self._writer.failed or self._has_leftovers:
            return None
        if self._again:
            victims, self._again = self._again, []
            total_bytes = sum(self._totals.file(number).record_bytes for number in victims)
            return _Run(victims, total_bytes, self._source.from_index(victims))
        sealed = [
            data_file
            for data_file in self._files.sealed()
            if data_file.number not in self._unreadable
            and (not all_garbage or self._is_ordered(data_file.number))
        ]
        chosen = choose(
            map(self._candidate, sealed),
            garbage_ratio=0.0 if all_garbage else self._settings.compaction_garbage_ratio,
            bytes_max=self._settings.data_file_bytes_max - SUPERBLOCK_BYTES,
            room_bytes=self._disk.free_bytes() - ROOM_BYTES,
        )
        if not chosen:
            return None
        victims = [candidate.number for candidate in chosen]
        total_bytes = sum(candidate.data_bytes for candidate in chosen)
        return _Run(victims, total_bytes, self._source.from_files(victims))

    # --- copying ----------------------------------------------------------------------------------

    def _copy(self, run: _Run, bytes_max: int) -> tuple[int, CompactFollow | None, bool]:
        cost = 0
        look: Look | None = None
        while cost < bytes_max and (look := next(run.source, None)) is not None:
            run.read_bytes += look.further_bytes
            run.has_gaps = run.has_gaps or look.is_gap
            if look.dropped_fid is not None:
                run.dropped.append(look.dropped_fid)
            if look.piece is None:
                cost += SKIPPED_RECORD_BYTES
            else:
                self._add(run, look.piece)
                cost += UPKEEP_RECORD_BYTES + 2 * len(look.piece.payload)
        if look is not None:
            if run.waiting_bytes >= WRITE_SLICES * bytes_max or len(run.waiting) >= WRITE_BUFFERS:
                self._write(run)
            return cost, None, False
        self._write(run)
        if run.output is not None:
            run.output.finish(self._disk)
            run.switching = scan_headers(run.output, SUPERBLOCK_BYTES)
        return cost, CompactFollow("write", SWITCH), False

    def _add(self, run: _Run, piece: Piece) -> None:
        """Have a record written with those that wait."""
        if run.output is None:
            number, salt = self._files.next_number(), self._rng.getrandbits(64)
            superblock = Superblock(self._uuid, number, salt, self._wall_ms(), COMPACTED)
            run.output = DataFile.create(self._disk, superblock)
            run.output.bytes_max = self._settings.data_file_bytes_max
        end = run.output.end
        header = msgspec.structs.replace(piece.header, offset=end + run.waiting_bytes, batch=end)
        padding = -len(piece.payload) % ALIGNMENT
        run.waiting += [encode_header(header, run.output.salt), piece.payload, PADDING[padding]]
        run.waiting_bytes += RECORD_HEADER_BYTES + len(piece.payload) + padding

    def _write(self, run: _Run) -> None:
        """Write what waits, durably: many short syncs rather than a long one at the end."""
        if run.output is not None and run.waiting:
            run.output.append(run.waiting, run.waiting_bytes)
            run.waiting.clear()
            run.waiting_bytes = 0

    def _give_up(self, run: _Run | None, error: NoSpace | DiskFailed) -> None:
        """Leave everything as it was."""
        self._problem = error.message
        self._run = None
        if isinstance(error, DiskFailed):
            self.failed = error.message
            self._unreadable.update(run.victims if run is not None else ())
        if run is not None and run.output is not None:
            run.output.file.close()
            # A start removes it, should this fail.
            with contextlib.suppress(DiskFailed):
                self._disk.remove(file_name(run.output.number) + UNFINISHED_SUFFIX)

    # --- switching --------------------------------------------------------------------------------

    def _switch(self, run: _Run) -> CompactFollow | None:
        """Switch some entries; the last slice makes the index durable and takes the old files out.

        Raises IndexLost, NoSpace, DiskFailed.
        """
        output = run.output
        if output is not None and self._files.get(output.number) is None:
            self._files.add(output)
        if run.switching is not None and output is not None:
            found = list(islice(run.switching, SWITCH_COUNT))
            self._writer.change(self._switched(run, output, found))
            if found:
                return CompactFollow("write", SWITCH)
        if run.dropped and not run.has_gaps:
            self._writer.change(self._drops(run, run.dropped[-SWITCH_COUNT:]))
            del run.dropped[-SWITCH_COUNT:]
            return CompactFollow("write", SWITCH)
        if output is not None:
            self._totals.complete(output.number)
            self._writer.change([])
        self._writer.checkpoint()
        empty = [number for number in run.victims if not self._totals.file(number).records]
        self._again = [number for number in run.victims if number not in empty]
        run.victims = empty
        for number in empty:
            self._freed_bytes += self._files.take_out(number).end
        return CompactFollow("background", REMOVE)

    def _switched(self, run: _Run, output: DataFile, found: list[Found | Gap]) -> list[Change]:
        changes: list[Change] = []
        for item in found:
            if isinstance(item, Gap):
                # What was switched already counts the victims as leaving, and they must stay: start anew.
                raise IndexLost(f"{file_name(output.number)} was damaged before its records were switched to")
            header = item.header
            old = self._index.get(header.fid)
            if old is None:
                continue
            # With gaps the victims may have to stay a while, and their copies with them.
            new = _moved(old, header, output.number, run.victims, leaving=() if run.has_gaps else run.victims)
            if self._quarantined.get(header.fid) == (old.file, old.offset) and new.file == output.number:
                self._quarantined[header.fid] = (new.file, new.offset)
            if new != old:
                changes.append((header.fid, old, new))
        return changes

    def _drops(self, run: _Run, fids: array[int]) -> list[Change]:
        changes: list[Change] = []
        for fid in fids:
            old = self._index.get(fid)
            if old is not None and old.is_tombstone and old.file in run.victims:
                changes.append((fid, old, None))
        return changes

    # --- removing ---------------------------------------------------------------------------------

    def _remove(self, run: _Run) -> CompactFollow:
        for number in run.victims:
            self._disk.remove(file_name(number))
        self._disk.sync_directory()
        return CompactFollow("write", FORGET)

    def _forget(self, run: _Run) -> None:
        for number in run.victims:
            self._files.is_gone(number)
            self._totals.forget(number)
        self._writer.change([])
        self._finished += 1
        self._problem = ""
        self._run = None


def _moved(
    old: Entry, header: RecordHeader, file: int, victims: Container[int], leaving: Container[int]
) -> Entry:
    """The entry of a fid whose record was copied to ``header`` of ``file``."""
    copied = (header.is_tombstone, header.length, header.checksum)
    if old.file not in victims or (old.is_tombstone, old.length, old.checksum) != copied:
        return holding(old, file, leaving)
    moved = Entry(file, header.offset, old.length, old.checksum, header.flags)
    if old.file not in leaving:
        return replacing(moved, old)
    many = old.flags & MANY
    stale = old.stale if many or old.stale not in leaving else 0
    return msgspec.structs.replace(moved, flags=moved.flags | many, stale=stale)
