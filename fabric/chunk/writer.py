"""The write side of the engine: one batch in, at most one write and one sync a file out.

Order is everything: records on stable storage, then the index, then the totals, then the answer.  A fid
that appears twice in a batch is written once, and both answers hang on that one record.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import xxhash

from fabric.chunk.copies import replacing
from fabric.chunk.data_file import DataFile
from fabric.chunk.index import Entry, Index, IndexLost, Watermark
from fabric.chunk.jobs import (
    BATCH_BYTES_MAX,
    DeleteItem,
    Outcome,
    SingleItem,
    StoreItem,
    StoreSeveral,
    WriteItem,
)
from fabric.chunk.record import (
    PADDING,
    SUPERBLOCK_BYTES,
    TOMBSTONE,
    RecordHeader,
    Superblock,
    encode_header,
    record_bytes,
)
from fabric.chunk.recovery import Recovered
from fabric.errors import BadChecksum, Conflict, DiskFailed, FabricError, NoSpace
from fabric.node.disk import Buffer, Disk
from fabric.node.effects import Unread

if TYPE_CHECKING:
    from typing import TypeAlias


Change: TypeAlias = "tuple[int, Entry | None, Entry | None]"
"""A fid, its entry before, its entry after."""

CHECKPOINT_RECORDS = 32_768
"""The watermark also moves at least once in this many records: a start reads each one behind it."""


class _Record(msgspec.Struct):
    """A record to be written, and whom to tell."""

    item: SingleItem
    old: Entry | None
    length: int
    checksum: int
    waiting: list[int]
    """Positions in the batch whose answers hang on it."""
    payload: Sequence[Buffer] = ()
    """Of a fragment, in pieces; none for a tombstone."""

    @property
    def is_tombstone(self) -> bool:
        return isinstance(self.item, DeleteItem)


class _Segment(msgspec.Struct):
    """The records of a batch that go to one file at once."""

    records: list[_Record] = msgspec.field(default_factory=list)
    changes: list[Change] = msgspec.field(default_factory=list)
    buffers: list[Buffer] = msgspec.field(default_factory=list)
    length: int = 0
    cold: list[tuple[DataFile, int, int]] = msgspec.field(default_factory=list)
    """What need not stay in memory: offset and length."""


class Writer:
    """Appends records.  Used by one thread at a time."""

    def __init__(
        self,
        disk: Disk,
        state: Recovered,
        *,
        uuid: bytes,
        file_bytes_max: int,
        checkpoint_bytes: int,
        rng: random.Random,
        wall_ms: Callable[[], int],
    ) -> None:
        self._disk = disk
        self._files = state.files
        if self._files.active is not None:
            self._files.active.bytes_max = file_bytes_max
        self._index: Index = state.index
        self._totals = state.totals
        self._quarantined = state.quarantined
        self._uuid = uuid
        self._file_bytes_max = file_bytes_max
        self._checkpoint_bytes = checkpoint_bytes
        self._rng = rng
        self._wall_ms = wall_ms
        self._highest_fid: int | None = None
        """No fid above it has an entry; None: nobody has looked.  Most that are stored lie above it."""
        self._unmarked_bytes = 0
        self._unmarked_records = 0
        self._cold: list[tuple[DataFile, int, int]] = []
        """Ranges of bytes, offset and length, that are on the disk and need not be in memory."""
        self.failed = ""
        """Why nothing is written any more; empty while all is well."""

    def write(self, items: list[WriteItem], no_space_reason: str) -> list[Outcome]:
        """Do one batch.  With a ``no_space_reason`` fragments are refused with it; tombstones are written."""
        self._let_go()
        singles: list[SingleItem] = []
        for item in items:
            if isinstance(item, StoreSeveral):
                singles += item.singly()
            else:
                singles.append(item)
        return _outcomes(items, self._write_singles(singles, no_space_reason))

    def _write_singles(self, singles: list[SingleItem], no_space_reason: str) -> list[FabricError | None]:
        """Why each was not done, if it was not."""
        errors: list[FabricError | None] = [None] * len(singles)
        records: dict[int, _Record] = {}
        order: list[_Record] = []
        for position, item in enumerate(singles):
            try:
                self._plan(item, position, records, order, no_space_reason)
            except IndexLost as error:
                self.failed = error.message
                errors[position] = error
            except FabricError as error:
                errors[position] = error
        self._write_records(order, errors)
        return errors

    def checkpoint(self) -> None:
        """Move the durable watermark to the end.

        Raises DiskFailed or NoSpace; the writer has failed then.
        """
        active = self._files.active
        if active is None or self.failed:
            return
        try:
            self._index.checkpoint(Watermark(active.number, active.end))
        except (DiskFailed, NoSpace) as error:
            self.failed = error.message
            raise
        self._unmarked_bytes = self._unmarked_records = 0

    def change(self, changes: Sequence[Change]) -> None:
        """Put entries that need no record: they moved, or are needed no more.  Raises DiskFailed, NoSpace.

        As ever, the index must hold them durably before what they replace is taken away.
        """
        if self.failed:
            raise DiskFailed(self.failed)
        for fid, old, new in changes:
            if self._highest_fid is not None and fid > self._highest_fid:
                self._highest_fid = fid
            self._totals.replace(fid, old, new)
        self._put([(fid, new) for fid, _, new in changes])
        self._totals.publish()

    def seal(self) -> None:
        """Append no more to the active file, but to a new one.  Raises NoSpace, DiskFailed."""
        if self.failed:
            raise DiskFailed(self.failed)
        self._roll()

    def _let_go(self) -> None:
        """Have the system use the memory of the last batch for the next; nobody waits for that here."""
        for data_file, offset, length in self._cold:
            with suppress(DiskFailed):  # a hint
                data_file.file.forget(offset, length)
        self._cold.clear()

    # --- deciding ---------------------------------------------------------------------------------

    def _plan(
        self,
        item: SingleItem,
        position: int,
        records: dict[int, _Record],
        order: list[_Record],
        no_space_reason: str,
    ) -> None:
        """Add the record that this item needs, or hang its answer on one of this batch.

        ``records`` holds the latest record of each fid in this batch.  Raises what the item is refused with.
        """
        if self.failed:
            raise DiskFailed(self.failed)
        earlier = records.get(item.fid)
        old = self._entry(item.fid) if earlier is None else earlier.old
        if isinstance(item, DeleteItem):
            self._plan_delete(item, position, records, order, old)
            return
        payload = _verified(item)
        length = len(item.payload)
        if earlier is not None:
            _check_same(item, length, earlier.is_tombstone, earlier.length, earlier.checksum)
            earlier.waiting.append(position)
            return
        if old is not None:
            _check_same(item, length, old.is_tombstone, old.length, old.checksum)
            if self._quarantined.get(item.fid) != (old.file, old.offset):
                return
        if no_space_reason:
            raise NoSpace(no_space_reason)
        record = _Record(item, old, length, item.checksum, [position], payload)
        records[item.fid] = record
        order.append(record)

    def _entry(self, fid: int) -> Entry | None:
        """What the index has.  Raises IndexLost, DiskFailed."""
        if self._highest_fid is None:
            self._highest_fid = self._index.highest_fid()
        return self._index.get(fid) if fid <= self._highest_fid else None

    def _plan_delete(
        self,
        item: DeleteItem,
        position: int,
        records: dict[int, _Record],
        order: list[_Record],
        old: Entry | None,
    ) -> None:
        earlier = records.get(item.fid)
        if earlier is not None and earlier.is_tombstone:
            earlier.waiting.append(position)
            return
        if earlier is not None:
            length, checksum = earlier.length, earlier.checksum
        elif old is None:
            length, checksum = 0, 0
        elif old.is_tombstone and self._quarantined.get(item.fid) != (old.file, old.offset):
            return
        else:
            length, checksum = old.length, old.checksum
        record = _Record(item, old, length, checksum, [position])
        records[item.fid] = record
        order.append(record)

    # --- doing ------------------------------------------------------------------------------------

    def _write_records(self, order: list[_Record], errors: list[FabricError | None]) -> None:
        """Write the records, and set the error of every answer that hangs on one that was not."""
        segment = _Segment()
        remaining = list(reversed(order))
        latest: dict[int, Entry] = {}
        try:
            while remaining:
                size = record_bytes(0 if remaining[-1].is_tombstone else remaining[-1].length)
                active = self._files.active
                if active is None or not self._fits(active, segment.length, size):
                    self._finish(segment)
                    segment = _Segment()
                    active = self._roll()
                elif segment.length + size > BATCH_BYTES_MAX:
                    self._finish(segment)
                    segment = _Segment()
                self._add(active, segment, remaining.pop(), size, latest)
            self._finish(segment)
        except (NoSpace, DiskFailed) as error:
            for record in [*segment.records, *remaining]:
                for position in record.waiting:
                    errors[position] = error

    def _fits(self, active: DataFile, pending_bytes: int, size: int) -> bool:
        """Whether the active file takes one more record; an empty one takes any."""
        end = active.end + pending_bytes
        return end + size <= self._file_bytes_max or end == SUPERBLOCK_BYTES

    def _add(
        self, active: DataFile, segment: _Segment, record: _Record, size: int, latest: dict[int, Entry]
    ) -> None:
        """Add a record to the segment; ``latest`` are the entries of this batch so far."""
        item, tombstone = record.item, record.is_tombstone
        flags = TOMBSTONE if tombstone else 0
        header = RecordHeader(
            fid=item.fid,
            offset=active.end + segment.length,
            checksum=record.checksum,
            epoch=item.epoch,
            time_ms=self._wall_ms(),
            batch=active.end,
            group=item.group,
            length=record.length,
            flags=flags,
        )
        old = latest.get(item.fid, record.old)
        entry = Entry(active.number, header.offset, record.length, record.checksum, flags)
        latest[item.fid] = new = replacing(entry, old)
        segment.records.append(record)
        segment.changes.append((item.fid, old, new))
        segment.buffers.append(encode_header(header, active.salt))
        if isinstance(item, StoreItem):
            segment.buffers += record.payload
            padding = -record.length % 8
            if padding:
                segment.buffers.append(PADDING[padding])
            if not item.stays_warm:
                segment.cold.append((active, header.offset, size))
        segment.length += size

    def _finish(self, segment: _Segment) -> None:
        """Write, sync, index and count one segment.

        Raises NoSpace, DiskFailed.  ``segment.records`` is empty when the records are safe.
        """
        active = self._files.active
        if active is None or not segment.records:
            return
        try:
            active.append(segment.buffers, segment.length)
        except DiskFailed as error:
            self.failed = error.message
            raise
        # One fid may be in a segment twice (stored, then deleted): in order, the later one stays.
        self.change(segment.changes)
        for fid, _, _ in segment.changes:
            self._quarantined.pop(fid, None)
        self._cold += segment.cold
        self._unmarked_bytes += segment.length
        self._unmarked_records += len(segment.changes)
        segment.records.clear()
        if self._unmarked_bytes >= self._checkpoint_bytes or self._unmarked_records >= CHECKPOINT_RECORDS:
            self.checkpoint()

    def _put(self, entries: list[tuple[int, Entry | None]]) -> None:
        try:
            self._index.put(entries, self._totals.take_changes())
        except (DiskFailed, NoSpace) as error:
            # The records are durable and the index does not know them: only a restart can tell.
            self.failed = error.message
            raise

    def _roll(self) -> DataFile:
        """Seal the active file and begin the next.  Raises NoSpace, DiskFailed."""
        try:
            if self._files.active is not None:
                self._files.active.cut()
            superblock = Superblock(
                self._uuid, self._files.next_number(), self._rng.getrandbits(64), self._wall_ms()
            )
            data_file = DataFile.create(self._disk, superblock)
        except DiskFailed as error:
            self.failed = error.message
            raise
        data_file.bytes_max = self._file_bytes_max
        self._files.roll(data_file)
        return data_file


def _outcomes(items: list[WriteItem], errors: list[FabricError | None]) -> list[Outcome]:
    """One for each item; ``errors`` are those of the single ones."""
    outcomes: list[Outcome] = []
    start = 0
    for item in items:
        if isinstance(item, StoreSeveral):
            end = start + len(item.fragments)
            refused = {at: error for at, error in enumerate(errors[start:end]) if error is not None}
            outcomes.append(Outcome(item.token, None, refused))
            start = end
        else:
            outcomes.append(Outcome(item.token, errors[start]))
            start += 1
    return outcomes


def _verified(item: StoreItem) -> Sequence[Buffer]:
    """The payload, in pieces.  Raises BadChecksum, and what loading it raises."""
    pieces: list[Buffer] = []
    if isinstance(item.payload, Unread):
        state = xxhash.xxh3_64()
        for piece in item.payload.load():
            state.update(piece)
            pieces.append(piece)
        checksum = state.intdigest()
    else:
        pieces.append(memoryview(item.payload))
        checksum = xxhash.xxh3_64_intdigest(pieces[0])
    if checksum != item.checksum:
        raise BadChecksum(f"fragment {item.fid}: the payload does not match its checksum")
    return pieces


def _check_same(item: StoreItem, length: int, is_tombstone: bool, old_length: int, old_checksum: int) -> None:
    """Raises Conflict unless what is there are the same bytes."""
    if is_tombstone:
        raise Conflict(f"fragment {item.fid} was deleted or aborted")
    if (length, item.checksum) != (old_length, old_checksum):
        raise Conflict(f"fragment {item.fid} is taken by other bytes")
