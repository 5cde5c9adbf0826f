"""The engine of a chunk server: runs the jobs of its lanes against disk and index.

One thread at a time runs the jobs of the write lane, one those of the background lane; any number run reads
beside them.  They share only what is safe to share without a lock: the index and the open files
(contracts say so), the table of files, the totals' snapshot (replaced whole) and the quarantine notes (single
entries, each checked against the index again by whoever uses it).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import xxhash

from fabric.chunk.compaction import Compaction
from fabric.chunk.copies import is_needed
from fabric.chunk.data_file import DataFile, file_name
from fabric.chunk.disk_check import TRIAL_BYTES, remove_leftover, try_disk
from fabric.chunk.index import Entry, IndexHome, IndexLost
from fabric.chunk.jobs import (
    CheckDiskJob,
    CompactDone,
    CompactFollow,
    CompactJob,
    CompareDone,
    CompareJob,
    DigestJob,
    DigestsDone,
    DiskChecked,
    Event,
    ListDone,
    ListJob,
    ReadBatch,
    ReadDone,
    ReadItem,
    ReadResult,
    ScrubDone,
    ScrubFollow,
    ScrubJob,
    Status,
    StatusDone,
    StatusJob,
    WriteBatch,
    WriteDone,
)
from fabric.chunk.record import RECORD_HEADER_BYTES
from fabric.chunk.recovery import recover
from fabric.chunk.scrub import Scrub
from fabric.chunk.totals import overall_digest
from fabric.chunk.writer import Writer
from fabric.errors import BadChecksum, BadRange, DiskFailed, FabricError, NoFragment, NoSpace
from fabric.node.disk import Disk
from fabric.settings import MIB, Settings
from fabric.wire.messages import BucketEntry

READING = (ReadBatch, StatusJob, DigestJob, ListJob, CompareJob)
"""Jobs that change nothing."""


class Engine:
    """Fragments on one disk."""

    def __init__(
        self,
        disk: Disk,
        home: IndexHome,
        *,
        uuid: bytes,
        settings: Settings,
        rng: random.Random,
        wall_ms: Callable[[], int],
        clock_us: Callable[[], int] = lambda: 0,
        on_bytes: Callable[[int, int], object] = lambda done, total: None,
    ) -> None:
        """Open and recover the directory; an empty one becomes an empty store.

        ``uuid``: 16 bytes, the owner.  ``rng`` must not be guessable by clients (it makes the salts of
        files).  ``wall_ms``: wall clock, milliseconds since 1970; no promise depends on it.  ``clock_us``:
        a clock that is never set back, microseconds, to time the disk with.  ``on_bytes`` hears of data files
        that are read: bytes so far, and in all.  Raises ForeignFile, DiskFailed, NoSpace.
        """
        state = recover(disk, home, uuid, on_bytes)
        self.notes = state.notes
        """What recovery found, for the log."""
        remove_leftover(disk)
        self._disk = disk
        self._rng = rng
        self._wall_ms = wall_ms
        self._clock_us = clock_us
        self._home = home
        self._files = state.files
        self._index = state.index
        self._totals = state.totals
        self._quarantined = state.quarantined
        self._capacity_bytes = disk.capacity_bytes()
        self._reserve_bytes = settings.reserve_bytes
        self._no_space_reason = ""
        self._failure = ""
        self._restart_reason = ""
        self._busy: set[int] = set()
        """Jobs under way that may change the disk; one that crashed stays."""
        self._writer = Writer(
            disk,
            state,
            uuid=uuid,
            file_bytes_max=settings.data_file_bytes_max,
            checkpoint_bytes=settings.checkpoint_bytes,
            rng=rng,
            wall_ms=wall_ms,
        )
        self._compaction = Compaction(
            disk, state, self._writer, uuid=uuid, settings=settings, rng=rng, wall_ms=wall_ms
        )
        self._scrub = Scrub(state, settings=settings, wall_ms=wall_ms)
        self._jobs: dict[type, Callable[[Any], Event]] = {
            WriteBatch: self._write,
            ReadBatch: lambda job: ReadDone([self._read(item) for item in job.items]),
            StatusJob: lambda job: StatusDone(self.status()),
            DigestJob: self._digests,
            ListJob: self._list,
            CompareJob: self._compare,
            ScrubJob: self._scrub_some,
            ScrubFollow: self._forget_tombstones,
            CompactJob: self._compact,
            CompactFollow: self._compact_on,
            CheckDiskJob: self._check_disk,
        }

    def run(self, job: object) -> Event:
        """Do a job of any lane.  What the world did wrong is in the event; only a bug raises."""
        if isinstance(job, READING):
            return self._jobs[type(job)](job)
        self._busy.add(id(job))
        event = self._jobs[type(job)](job)
        self._busy.discard(id(job))
        return event

    def status(self) -> Status:
        """Counts, space, and whether fragments can be stored."""
        return self._status(self._free_bytes())

    def _status(self, free_bytes: int) -> Status:
        snapshot = self._totals.snapshot
        data_bytes = self._files.data_bytes
        return Status(
            fragments=snapshot.fragments,
            live_bytes=snapshot.live_bytes,
            free_bytes=max(0, free_bytes - self._reserve_bytes),
            capacity_bytes=self._capacity_bytes,
            quarantined=len(self._quarantined),
            mutations=snapshot.mutations,
            read_only_reason=self._writer.failed or self._failure or self._space_reason(free_bytes),
            files=self._files.count,
            data_bytes=data_bytes,
            garbage_bytes=max(0, data_bytes - snapshot.record_bytes),
            restart_reason=self._restart_reason,
        )

    def close(self) -> None:
        """Make the next start a quick one, and release everything.  Raises DiskFailed, NoSpace.

        Leaves everything to recovery when a write hangs in the disk, or has crashed.
        """
        if self._busy:
            return
        try:
            if not self._restart_reason:
                self._writer.checkpoint()
        finally:
            self._index.close()
            self._files.close()

    def _note_failure(self, error: FabricError) -> None:
        """The disk or the index has failed: be read-only, or be rebuilt."""
        self._failure = error.message
        if not isinstance(error, IndexLost) or self._restart_reason:
            return
        self._restart_reason = f"{error.message}; the next start rebuilds the index from the data files"
        try:
            self._home.condemn()
        except DiskFailed as failure:
            self._failure = f"{error.message}; {failure.message}"

    def _free_bytes(self) -> int:
        """0, and a reason to be read-only, when the system does not even tell."""
        try:
            return self._disk.free_bytes()
        except DiskFailed as error:
            self._note_failure(error)
            return 0

    def _space_reason(self, free_bytes: int) -> str:
        """Full below the reserve; no longer full a tenth above it, so that it does not flap."""
        limit = self._reserve_bytes * (11 if self._no_space_reason else 10) // 10
        self._no_space_reason = (
            f"disk nearly full: {free_bytes // MIB} MiB free, {self._reserve_bytes // MIB} MiB in reserve"
            if free_bytes < limit
            else ""
        )
        return self._no_space_reason

    # --- writing ----------------------------------------------------------------------------------

    def _write(self, job: WriteBatch) -> WriteDone:
        free_bytes = self._free_bytes()
        outcomes = self._writer.write(job.items, self._space_reason(free_bytes))
        for outcome in outcomes:
            if isinstance(outcome.error, IndexLost):
                self._note_failure(outcome.error)
        return WriteDone(outcomes, self._status(free_bytes))

    # --- upkeep -----------------------------------------------------------------------------------

    def _scrub_some(self, job: ScrubJob) -> ScrubDone:
        if self._restart_reason:
            return ScrubDone(self._scrub.status(), self.status(), idle=True)
        try:
            done = self._scrub.read(job)
        except (DiskFailed, NoSpace) as error:
            if isinstance(error, DiskFailed):
                self._note_failure(error)
            return ScrubDone(self._scrub.status(), self.status(), idle=True)
        if self._scrub.failed:
            self._failure = self._scrub.failed
        return ScrubDone(
            self._scrub.status(),
            self.status(),
            done.cost_bytes,
            done.idle,
            done.damaged,
            done.lost_tombstones,
            ScrubFollow(done.needless) if done.needless else None,
        )

    def _forget_tombstones(self, job: ScrubFollow) -> ScrubDone:
        numbers = self._files.numbers()
        try:
            rows = [(fid, self._index.get(fid)) for fid in job.fids]
            self._writer.change(
                [
                    (fid, entry, None)
                    for fid, entry in rows
                    if entry is not None and entry.is_tombstone and not is_needed(entry, numbers)
                ]
            )
        except (DiskFailed, NoSpace) as error:
            if isinstance(error, IndexLost):
                self._note_failure(error)
        return ScrubDone(self._scrub.status(), self.status())

    def _compact(self, job: CompactJob) -> CompactDone:
        if self._restart_reason:
            return self._compacted(0, None, True)
        try:
            cost_bytes, follow, idle = self._compaction.copy(job)
        except IndexLost as error:
            self._note_failure(error)
            cost_bytes, follow, idle = 0, None, True
        return self._compacted(cost_bytes, follow, idle)

    def _compact_on(self, job: CompactFollow) -> CompactDone:
        try:
            follow = self._compaction.follow(job.step)
        except IndexLost as error:
            self._note_failure(error)
            follow = None
        return self._compacted(0, follow, False)

    def _compacted(self, cost_bytes: int, follow: CompactFollow | None, idle: bool) -> CompactDone:
        if self._compaction.failed:
            self._failure = self._compaction.failed
        return CompactDone(self._compaction.status(), self.status(), cost_bytes, idle, follow)

    def _check_disk(self, job: CheckDiskJob) -> DiskChecked:
        trial = try_disk(self._disk, self._rng.randbytes(TRIAL_BYTES), self._wall_ms, self._clock_us)
        if trial.is_unsafe:
            self._failure = f"disk check: {trial.check.problem}"
        return DiskChecked(trial.check, self.status())

    # --- reading ----------------------------------------------------------------------------------

    def _read(self, item: ReadItem) -> ReadResult:
        try:
            entry, data_file = self._find(item.fid)
        except DiskFailed as error:
            self._note_failure(error)
            return ReadResult(item.token, error=error)
        if entry is None or entry.is_tombstone or data_file is None:
            return ReadResult(item.token, error=NoFragment(f"fragment {item.fid} is not on this server"))
        end = item.offset + item.length
        if end > entry.length:
            text = f"fragment {item.fid} has {entry.length} bytes, {item.offset} to {end} were asked for"
            return ReadResult(item.token, error=BadRange(text))
        if item.place_only:
            file, position = file_name(data_file.number), entry.offset + RECORD_HEADER_BYTES
            return ReadResult(
                item.token, b"", entry.checksum, file=file, position=position, near_bytes=item.length
            )
        try:
            payload = data_file.read(item.fid, entry.offset, entry.length, entry.checksum)
        except BadChecksum as error:
            return self._damaged(item, entry, error)
        except DiskFailed as error:
            self._note_failure(error)
            return self._damaged(item, entry, error)
        if item.length == entry.length:
            return ReadResult(item.token, payload, entry.checksum)
        part = payload[item.offset : end]
        return ReadResult(item.token, part, xxhash.xxh3_64_intdigest(part))

    def _find(self, fid: int) -> tuple[Entry | None, DataFile | None]:
        """Where a fragment is.  Raises IndexLost, DiskFailed."""
        while True:
            entry = self._index.get(fid)
            if entry is None:
                return None, None
            data_file = self._files.get(entry.file)
            if data_file is not None:
                return entry, data_file
            # Compaction has taken its file out since; before that it has moved the entry.
            if self._index.get(fid) == entry:
                raise IndexLost(f"the index says that fragment {fid} is in a file that is not there")

    def _damaged(self, item: ReadItem, entry: Entry, error: FabricError) -> ReadResult:
        self._quarantined[item.fid] = (entry.file, entry.offset)
        good = BucketEntry(item.fid, entry.length, entry.checksum)
        return ReadResult(item.token, error=error, damaged=good)

    def _digests(self, job: DigestJob) -> DigestsDone:
        snapshot = self._totals.snapshot
        digests = snapshot.bucket_digests()
        return DigestsDone(job.token, digests, overall_digest(digests), snapshot.mutations)

    def _list(self, job: ListJob) -> ListDone:
        try:
            rows = self._index.scan_bucket(job.bucket, job.after or None)
            live = (
                BucketEntry(fid, entry.length, entry.checksum)
                for fid, entry in rows
                if not entry.is_tombstone
            )
            entries = list(islice(live, job.limit + 1))
        except DiskFailed as error:
            self._note_failure(error)
            return ListDone(job.token, [], False, error)
        return ListDone(job.token, entries[: job.limit], len(entries) > job.limit)

    def _compare(self, job: CompareJob) -> CompareDone:
        done = CompareDone(job.token, [], [], [])
        try:
            for theirs in job.entries:
                ours = self._index.get(theirs.fid)
                if ours is None:
                    done.missing.append(theirs)
                elif ours.is_tombstone:
                    done.dead.append(theirs.fid)
                elif (ours.length, ours.checksum) != (theirs.length, theirs.checksum):
                    done.conflicting.append(theirs.fid)
        except DiskFailed as error:
            self._note_failure(error)
            return CompareDone(job.token, [], [], [], error)
        return done
