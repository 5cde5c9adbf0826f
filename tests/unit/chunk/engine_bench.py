"""What the engine tests share: an engine on the fake disk, and short ways to use it."""

from __future__ import annotations

import random
from collections.abc import Callable

import xxhash

from fabric.chunk.engine import Engine
from fabric.chunk.jobs import (
    CompactDone,
    CompactJob,
    DeleteItem,
    DigestJob,
    DigestsDone,
    ListDone,
    ListJob,
    Outcome,
    ReadBatch,
    ReadDone,
    ReadItem,
    ReadResult,
    ScrubDone,
    ScrubJob,
    StoreItem,
    WriteBatch,
    WriteDone,
)
from fabric.settings import BUCKETS, Settings
from sim.disk import FakeDisk
from sim.index import MemoryIndexHome

UUID = bytes(range(16))
GROUP, EPOCH = 1, 7
SMALL = Settings(data_file_bytes_max=64 * 1024, reserve_bytes=0, checkpoint_bytes=2**40)


def checksum_of(payload: bytes) -> int:
    return xxhash.xxh3_64_intdigest(payload)


def payload_of(fid: int, length: int = 100) -> bytes:
    return random.Random(fid).randbytes(length)


class Bench:
    """An engine that can be crashed and started again."""

    def __init__(
        self,
        disk: FakeDisk | None = None,
        home: MemoryIndexHome | None = None,
        settings: Settings = SMALL,
        wall_ms: Callable[[], int] = lambda: 1000,
    ) -> None:
        self.disk = disk or FakeDisk()
        self.home = home or MemoryIndexHome()
        self.settings = settings
        self.wall_ms = wall_ms
        self.engine = Engine(
            self.disk, self.home, uuid=UUID, settings=settings, rng=random.Random(1), wall_ms=wall_ms
        )

    def crashed(self, disk: FakeDisk | None = None) -> Bench:
        """What starts after a power cut that left ``disk``."""
        return Bench(disk or self.disk.crash(), self.home, self.settings, self.wall_ms)

    def killed(self) -> Bench:
        """What starts after the process was killed: the system still has all that was written."""
        self.engine._index.close()
        return Bench(self.disk, self.home, self.settings, self.wall_ms)

    def without_index(self) -> Bench:
        """What starts on the same data files when the index is gone."""
        return Bench(self.disk, MemoryIndexHome(), self.settings, self.wall_ms)

    def write(self, *items: StoreItem | DeleteItem) -> list[Outcome]:
        done = self.engine.run(WriteBatch(list(items)))
        assert isinstance(done, WriteDone)
        return done.outcomes

    def store(self, *fids: int, length: int = 100) -> None:
        """Store fragments in one batch, which must succeed."""
        outcomes = self.write(*(item(fid, length=length) for fid in fids))
        assert [outcome.error for outcome in outcomes] == [None] * len(fids)

    def codes(self, *items: StoreItem | DeleteItem) -> list[str]:
        """Error codes, "" for success."""
        return [outcome.error.code if outcome.error else "" for outcome in self.write(*items)]

    def read(self, fid: int, offset: int = 0, length: int = 100) -> ReadResult:
        done = self.engine.run(ReadBatch([ReadItem("token", fid, offset, length)]))
        assert isinstance(done, ReadDone)
        return done.results[0]

    def content(self, fid: int, length: int = 100) -> bytes | str:
        """The bytes, or the code of the error."""
        result = self.read(fid, 0, length)
        return result.error.code if result.error else bytes(result.payload)

    def live(self) -> dict[int, int]:
        """fid -> checksum, by way of the listing."""
        found = {}
        for bucket in range(BUCKETS):
            done = self.engine.run(ListJob(None, bucket, 0, 10_000))
            assert isinstance(done, ListDone)
            found |= {entry.fid: entry.checksum for entry in done.entries}
        return found

    def compact(self, *, all_garbage: bool = True, bytes_max: int = 2**20) -> CompactDone:
        """Compact until nothing is worth it; gives the last event."""
        while True:
            done = self.engine.run(CompactJob(bytes_max, all_garbage))
            while isinstance(done, CompactDone) and done.follow is not None:
                done = self.engine.run(done.follow)
            assert isinstance(done, CompactDone)
            if done.idle:
                return done

    def scrub(self, *, bytes_max: int = 2**20) -> list[ScrubDone]:
        """Scrub from the start to the end; gives all events."""
        found = []
        job = ScrubJob(bytes_max, anew=True)
        while True:
            done = self.engine.run(job)
            assert isinstance(done, ScrubDone)
            found.append(done)
            if done.follow is not None:
                self.engine.run(done.follow)
            if not done.scrub.running:
                return found
            job = ScrubJob(bytes_max)

    def digest(self) -> bytes:
        done = self.engine.run(DigestJob(None))
        assert isinstance(done, DigestsDone)
        return done.overall


def item(fid: int, payload: bytes | None = None, length: int = 100) -> StoreItem:
    payload = payload_of(fid, length) if payload is None else payload
    return StoreItem(fid, fid, GROUP, EPOCH, checksum_of(payload), payload)


def delete(fid: int) -> DeleteItem:
    return DeleteItem(fid, fid, GROUP, EPOCH)
