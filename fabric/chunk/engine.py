"""The engine of a chunk server: runs the jobs of its lanes against disk and index.

One thread at a time runs ``write`` jobs; any number run ``read`` jobs beside it.  They share only what
is safe to share without a lock: the index and the open files (contracts say so), the table of files (only
grows), the totals' snapshot (replaced whole) and the quarantine notes (single entries, each checked
against the index again by whoever uses it).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice

import xxhash

from fabric.chunk.index import Entry, IndexHome
from fabric.chunk.jobs import (
    CompareDone,
    CompareJob,
    DigestJob,
    DigestsDone,
    Event,
    ListDone,
    ListJob,
    ReadBatch,
    ReadDone,
    ReadItem,
    ReadResult,
    Status,
    StatusDone,
    StatusJob,
    WriteBatch,
    WriteDone,
)
from fabric.chunk.recovery import recover
from fabric.chunk.totals import overall_digest
from fabric.chunk.writer import Writer
from fabric.errors import BadChecksum, BadRange, DiskFailed, FabricError, NoFragment
from fabric.node.disk import Disk
from fabric.settings import MIB, Settings
from fabric.wire.messages import BucketEntry


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
    ) -> None:
        """Open and recover the directory; an empty one becomes an empty store.

        ``uuid``: 16 bytes, the owner.  ``rng`` must not be guessable by clients (it makes the salts of
        files).  ``wall_ms``: wall clock for people.  Raises ForeignFile, DiskFailed, NoSpace.
        """
        state = recover(disk, home, uuid)
        self.notes = state.notes
        """What recovery found, for the log."""
        self._disk = disk
        self._files = state.files
        self._index = state.index
        self._totals = state.totals
        self._quarantined = state.quarantined
        self._capacity_bytes = disk.capacity_bytes()
        self._reserve_bytes = settings.reserve_bytes
        self._no_space_reason = ""
        self._read_failure = ""
        self._writing = False
        self._writer = Writer(
            disk,
            state,
            uuid=uuid,
            file_bytes_max=settings.data_file_bytes_max,
            checkpoint_bytes=settings.checkpoint_bytes,
            rng=rng,
            wall_ms=wall_ms,
        )

    def run(self, job: object) -> Event:
        """Do a job of either lane.  What the world did wrong is in the event; only a bug raises."""
        if isinstance(job, WriteBatch):
            self._writing = True
            outcomes = self._writer.write(job.items, self._space_reason(self._free_bytes()))
            self._writing = False
            return WriteDone(outcomes, self.status())
        if isinstance(job, ReadBatch):
            return ReadDone([self._read(item) for item in job.items])
        if isinstance(job, StatusJob):
            return StatusDone(self.status())
        if isinstance(job, DigestJob):
            snapshot = self._totals.snapshot
            digests = snapshot.bucket_digests()
            return DigestsDone(job.token, digests, overall_digest(digests), snapshot.mutations)
        if isinstance(job, ListJob):
            return self._list(job)
        if isinstance(job, CompareJob):
            return self._compare(job)
        raise TypeError(f"{type(job).__name__} is no job of the chunk engine")

    def status(self) -> Status:
        """Counts, space, and whether fragments can be stored."""
        free_bytes = self._free_bytes()
        snapshot = self._totals.snapshot
        return Status(
            fragments=snapshot.fragments,
            live_bytes=snapshot.live_bytes,
            free_bytes=max(0, free_bytes - self._reserve_bytes),
            capacity_bytes=self._capacity_bytes,
            quarantined=len(self._quarantined),
            mutations=snapshot.mutations,
            read_only_reason=self._writer.failed or self._read_failure or self._space_reason(free_bytes),
        )

    def close(self) -> None:
        """Make the next start a quick one, and release everything.  Raises DiskFailed, NoSpace.

        Leaves everything to recovery when a write hangs in the disk, or has crashed.
        """
        if self._writing:
            return
        try:
            self._writer.checkpoint()
        finally:
            self._index.close()
            for data_file in self._files.values():
                data_file.file.close()

    def _free_bytes(self) -> int:
        """0, and a reason to be read-only, when the system does not even tell."""
        try:
            return self._disk.free_bytes()
        except DiskFailed as error:
            self._read_failure = error.message
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

    # --- reading ----------------------------------------------------------------------------------

    def _read(self, item: ReadItem) -> ReadResult:
        try:
            entry = self._index.get(item.fid)
        except DiskFailed as error:
            self._read_failure = error.message
            return ReadResult(item.token, error=error)
        if entry is None or entry.is_tombstone:
            return ReadResult(item.token, error=NoFragment(f"fragment {item.fid} is not on this server"))
        end = item.offset + item.length
        if end > entry.length:
            text = f"fragment {item.fid} has {entry.length} bytes, {item.offset} to {end} were asked for"
            return ReadResult(item.token, error=BadRange(text))
        try:
            payload = self._files[entry.file].read(item.fid, entry.offset, entry.length, entry.checksum)
        except (BadChecksum, DiskFailed) as error:
            return self._damaged(item, entry, error)
        if item.length == entry.length:
            return ReadResult(item.token, payload, entry.checksum)
        part = payload[item.offset : end]
        return ReadResult(item.token, part, xxhash.xxh3_64_intdigest(part))

    def _damaged(self, item: ReadItem, entry: Entry, error: FabricError) -> ReadResult:
        self._quarantined[item.fid] = (entry.file, entry.offset)
        good = BucketEntry(item.fid, entry.length, entry.checksum)
        return ReadResult(item.token, error=error, damaged=good)

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
            self._read_failure = error.message
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
            self._read_failure = error.message
            return CompareDone(job.token, [], [], [], error)
        return done
