"""Stores to measure: an engine on the real disk, and short ways to fill it."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import xxhash

from bench.errors import BenchError
from fabric.chunk.engine import Engine
from fabric.chunk.jobs import DeleteItem, ReadBatch, ReadDone, ReadItem, StoreItem, WriteBatch, WriteDone
from fabric.chunk.leveldb_index import LevelDbHome
from fabric.node.os_disk import OsDisk
from fabric.settings import Settings

UUID = bytes(range(16))
GROUP, EPOCH = 1, 1
SETTINGS = Settings(reserve_bytes=0)


@contextlib.contextmanager
def open_engine(directory: Path, disk: OsDisk | None = None) -> Iterator[Engine]:
    """The engine of a chunk server's data directory, as ``fabric chunk`` would open it; closed at the end."""
    disk = disk or OsDisk(directory / "fragments")
    engine = Engine(
        disk,
        LevelDbHome(directory / "index"),
        uuid=UUID,
        settings=SETTINGS,
        rng=random.SystemRandom(),
        wall_ms=lambda: time.time_ns() // 1_000_000,
    )
    try:
        yield engine
    finally:
        engine.close()
        disk.close()


class Payloads:
    """Some payloads of one size, with their checksums: incompressible, and not all the same."""

    def __init__(self, size_bytes: int, count: int = 8) -> None:
        self._payloads = [random.Random(number).randbytes(size_bytes) for number in range(count)]
        self._checksums = [xxhash.xxh3_64_intdigest(payload) for payload in self._payloads]
        self.size_bytes = size_bytes

    def item(self, fid: int, token: object = None) -> StoreItem:
        """A fragment to store."""
        which = fid % len(self._payloads)
        return StoreItem(token, fid, GROUP, EPOCH, self._checksums[which], self._payloads[which])


def write(engine: Engine, items: Iterable[StoreItem | DeleteItem]) -> None:
    """Write one batch.  Raises BenchError when any of it fails."""
    done = engine.run(WriteBatch(list(items)))
    assert isinstance(done, WriteDone)
    for outcome in done.outcomes:
        if outcome.error is not None:
            raise BenchError(outcome.error.message)


def read(engine: Engine, fid: int, length: int) -> None:
    """Read one fragment.  Raises BenchError."""
    done = engine.run(ReadBatch([ReadItem(None, fid, 0, length)]))
    assert isinstance(done, ReadDone)
    error = done.results[0].error
    if error is not None:
        raise BenchError(error.message)


def delete(fid: int) -> DeleteItem:
    """A tombstone to write."""
    return DeleteItem(None, fid, GROUP, EPOCH)


def forget_pages(directory: Path) -> None:
    """Have the system drop what it caches of the files below ``directory``, as far as that is on the disk."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
