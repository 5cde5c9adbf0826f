"""The scrub: reads every record that counts, and finds what has rotted before somebody needs it.

It walks the index, bucket by bucket, so that it also finds what should be there and is not; inside a page of
entries it reads in the order of the disk.  At the start of a bucket the rows of the index are checked against
its counters.  Its place is a note in the index, so a restart goes on where it was.

A damaged fragment is quarantined here and reported: a peer has a good copy.  A damaged tombstone is reported
too: it is written anew, since the index knows all that it said.  A tombstone that is needed no more loses its
entry (see ``copies``); its record is garbage then.

Each record is read from the disk itself, not from the system's memory: ``File.forget`` goes before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import islice

import msgspec

from fabric.chunk.copies import is_needed
from fabric.chunk.index import Entry
from fabric.chunk.jobs import ScrubJob, ScrubStatus
from fabric.chunk.recovery import Recovered
from fabric.errors import BadChecksum, DiskFailed
from fabric.settings import BUCKETS, UPKEEP_RECORD_BYTES, Settings
from fabric.wire.messages import BucketEntry

PAGE_COUNT = 64
"""Entries read in one job, at most."""
NOTE = "scrub"

_PLACE = struct.Struct("<IIIQQQQQQ")
_DONE = BUCKETS
"""Bucket of the place behind the last one."""


class _Place(msgspec.Struct):
    """Where the scrub is, and what it has found on the way."""

    version: int = 1
    bucket: int = _DONE
    passes: int = 0
    after: int = 0
    """The last fid read in the bucket, plus one; 0: none."""
    started_at_ms: int = 0
    finished_at_ms: int = 0
    records: int = 0
    read_bytes: int = 0
    damaged: int = 0


class Slice(msgspec.Struct):
    """What one job found."""

    cost_bytes: int = 0
    idle: bool = False
    damaged: list[BucketEntry] = msgspec.field(default_factory=list)
    lost_tombstones: list[int] = msgspec.field(default_factory=list)
    needless: list[int] = msgspec.field(default_factory=list)
    """Fids of tombstones that nothing needs any more."""


class Scrub:
    """Reads one slice after the other; used by one thread."""

    def __init__(
        self,
        state: Recovered,
        *,
        settings: Settings,
        wall_ms: Callable[[], int],
    ) -> None:
        """Raises IndexLost, DiskFailed."""
        self._files = state.files
        self._index = state.index
        self._quarantined = state.quarantined
        self._interval_ms = int(settings.scrub_interval_s * 1000)
        self._keep_ms = int(settings.tombstone_keep_s * 1000)
        self._wall_ms = wall_ms
        self._place = _decode(state.index.noted(NOTE))
        self.failed = ""
        """Set when the disk could not be read: reason to be read-only."""

    def status(self) -> ScrubStatus:
        """How far it is."""
        place = self._place
        running = place.bucket < _DONE
        return ScrubStatus(
            passes=place.passes,
            running=running,
            progress=place.bucket / BUCKETS if running or place.passes else 0.0,
            started_at_ms=place.started_at_ms,
            finished_at_ms=place.finished_at_ms,
            records=place.records,
            read_bytes=place.read_bytes,
            damaged=place.damaged,
        )

    def read(self, job: ScrubJob) -> Slice:
        """Do one slice.  Raises IndexLost, DiskFailed, NoSpace (of the index)."""
        place = self._place
        if job.anew or (place.bucket >= _DONE and self._is_due()):
            place = self._place = _Place(
                bucket=0,
                passes=place.passes,
                started_at_ms=self._wall_ms(),
                finished_at_ms=place.finished_at_ms,
            )
        if place.bucket >= _DONE:
            return Slice(idle=True)
        if not place.after:
            self._index.verify_bucket(place.bucket)
        done = Slice()
        page = self._page(job.bytes_max)
        # In the order of the disk.
        for fid, entry in sorted(page, key=lambda row: (row[1].file, row[1].offset)):
            self._verify(fid, entry, done)
        self._advance(page)
        self._index.note(NOTE, _encode(self._place))
        return done

    def _is_due(self) -> bool:
        now = self._wall_ms()
        # A wall clock that was set back must not put the next pass off for years.
        return not 0 <= now - self._place.started_at_ms < self._interval_ms

    def _page(self, bytes_max: int) -> list[tuple[int, Entry]]:
        place = self._place
        rows = self._index.scan_bucket(place.bucket, place.after - 1 if place.after else None)
        page: list[tuple[int, Entry]] = []
        total = 0
        for fid, entry in islice(rows, PAGE_COUNT):
            page.append((fid, entry))
            total += entry.record_bytes
            if total >= bytes_max:
                break
        return page

    def _advance(self, page: list[tuple[int, Entry]]) -> None:
        place = self._place
        if page and page[-1][0] < 2**64 - 1:
            place.after = page[-1][0] + 1
            return
        place.bucket += 1
        place.after = 0
        if place.bucket == _DONE:
            place.passes += 1
            place.finished_at_ms = self._wall_ms()

    def _verify(self, fid: int, entry: Entry, done: Slice) -> None:
        place = self._place
        place.records += 1
        place.read_bytes += entry.record_bytes
        done.cost_bytes += entry.record_bytes + UPKEEP_RECORD_BYTES
        data_file = self._files.get(entry.file)
        if data_file is None:
            return  # Compaction has moved it: read just now, by compaction.
        try:
            data_file.file.forget(entry.offset, entry.record_bytes)
            if entry.is_tombstone:
                header = data_file.read_header(fid, entry.offset, entry.length, entry.checksum)
                self._note_needless(fid, entry, header.time_ms, done)
            else:
                data_file.read(fid, entry.offset, entry.length, entry.checksum)
        except DiskFailed as error:
            self.failed = error.message
            self._bad(fid, entry, done)
        except BadChecksum:
            self._bad(fid, entry, done)

    def _note_needless(self, fid: int, entry: Entry, time_ms: int, done: Slice) -> None:
        if self._wall_ms() - time_ms >= self._keep_ms and not is_needed(entry, self._files.numbers()):
            done.needless.append(fid)

    def _bad(self, fid: int, entry: Entry, done: Slice) -> None:
        if self._index.get(fid) != entry:
            return  # It was deleted, moved or repaired meanwhile.
        self._place.damaged += 1
        self._quarantined[fid] = (entry.file, entry.offset)
        if entry.is_tombstone:
            done.lost_tombstones.append(fid)
        else:
            done.damaged.append(BucketEntry(fid, entry.length, entry.checksum))


def _encode(place: _Place) -> bytes:
    return _PLACE.pack(*msgspec.structs.astuple(place))


def _decode(note: bytes | None) -> _Place:
    """The place that was noted; from the start when there is none, or it is of another version."""
    if note is None or len(note) != _PLACE.size:
        return _Place()
    place = _Place(*_PLACE.unpack(note))
    return place if place.version == _Place().version else _Place()
