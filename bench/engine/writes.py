"""Durable puts: against the disk, and how many share one sync."""

from __future__ import annotations

import os
import select
import tempfile
from pathlib import Path
from time import perf_counter

from bench.engine.figures import Figure, figure
from bench.engine.store import Payloads, forget_pages, open_engine, write
from bench.errors import BenchError
from bench.stats import median
from fabric.chunk.data_file import ALLOCATE_BYTES
from fabric.chunk.engine import Engine
from fabric.chunk.jobs import Outcome, StoreItem, WriteBatch, WriteDone
from fabric.chunk.write_queue import LANE, Ticket, WriteQueue
from fabric.node.disk import Buffer, File
from fabric.node.effects import Effect, Run
from fabric.node.lanes import Lane, Lanes
from fabric.node.os_disk import OsDisk
from fabric.settings import KIB, MIB

BATCH = 4
"""4 MiB puts that share a sync, as four clients make them."""
TURN_BATCHES = 4
IN_FLIGHT = 64


def large_puts(work: Path, *, runs: int, total_bytes: int) -> Figure:
    """Puts of 4 MiB, ``BATCH`` to a sync, against the same bytes appended to a preallocated file.

    The limit is one ``pwritev`` and one ``fdatasync`` a batch: no header, checksum or index.  Engine and
    limit take turns of ``TURN_BATCHES`` on the same disk until each has moved ``total_bytes`` in a run; its
    ratio is that of the times of all its turns, checkpoints of the index included.

    After each turn the system forgets what it wrote, outside of the measured time.  Else both would
    measure memory and not the disk: on a virtual machine a page that its host must supply anew takes
    longer than to write it to the disk.
    """
    payloads = Payloads(4 * MIB)
    turns = max(1, total_bytes // (TURN_BATCHES * BATCH * payloads.size_bytes))
    ratios, rates, limits = [], [], []
    with (
        tempfile.TemporaryDirectory(prefix="puts-", dir=work) as directory,
        open_engine(Path(directory)) as engine,
    ):
        puts, limit = _Puts(engine), _Appends(Path(directory) / "limit")
        sides: list[_Puts | _Appends] = [puts, limit]
        for number in range(runs + 1):
            took = {puts: 0.0, limit: 0.0}
            for _ in range(turns if number else 1):
                for side in sides:
                    took[side] += side.append(payloads, TURN_BATCHES)
                    forget_pages(Path(directory))
                sides.reverse()
            if number:  # The first one warms up.
                megabytes = turns * TURN_BATCHES * BATCH * payloads.size_bytes / 1e6
                rates.append(megabytes / took[puts])
                limits.append(megabytes / took[limit])
                ratios.append(took[limit] / took[puts])
        limit.close()
    beside = f"{median(rates):,.0f} MB/s, disk {median(limits):,.0f} MB/s"
    return figure("put 4 MiB, durable", ratios, "of disk", target=0.9, at_least=True, beside=beside)


class _Puts:
    """The engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fid = 0

    def append(self, payloads: Payloads, batches: int) -> float:
        """Seconds for so many batches."""
        started = perf_counter()
        for _ in range(batches):
            write(self._engine, [payloads.item(self._fid + number) for number in range(BATCH)])
            self._fid += BATCH
        return perf_counter() - started


class _Appends:
    """The disk alone."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        self._end = self._allocated = 0

    def append(self, payloads: Payloads, batches: int) -> float:
        """Seconds for so many batches."""
        buffers = [payloads.item(number).payload for number in range(BATCH)]
        started = perf_counter()
        for _ in range(batches):
            while self._end + BATCH * payloads.size_bytes > self._allocated:
                os.posix_fallocate(self._fd, self._allocated, ALLOCATE_BYTES)
                self._allocated += ALLOCATE_BYTES
            self._end += os.pwritev(self._fd, buffers, self._end)
            os.fdatasync(self._fd)
        return perf_counter() - started

    def close(self) -> None:
        os.close(self._fd)


class CountingFile:
    """A file that counts its syncs and reads."""

    def __init__(self, file: File, disk: CountingDisk) -> None:
        self._file, self._disk = file, disk

    def pwritev(self, buffers: list[Buffer], offset: int) -> None:
        self._file.pwritev(buffers, offset)

    def pread(self, length: int, offset: int) -> bytes:
        self._disk.reads += 1
        return self._file.pread(length, offset)

    def fdatasync(self) -> None:
        self._disk.syncs += 1
        self._file.fdatasync()

    def allocate(self, offset: int, length: int) -> None:
        self._file.allocate(offset, length)

    def truncate(self, length: int) -> None:
        self._file.truncate(length)

    def size(self) -> int:
        return self._file.size()

    def forget(self, offset: int, length: int) -> None:
        self._file.forget(offset, length)

    def close(self) -> None:
        self._file.close()


class CountingDisk(OsDisk):
    """A real disk that counts what is done to its data files."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.syncs = 0
        self.reads = 0

    def open(self, name: str) -> CountingFile:  # type: ignore[override]
        return CountingFile(super().open(name), self)

    def create(self, name: str) -> CountingFile:  # type: ignore[override]
        return CountingFile(super().create(name), self)


def small_puts(work: Path, *, runs: int, seconds: float) -> Figure:
    """Puts of 1 KiB, ``IN_FLIGHT`` under way: records to an ``fdatasync``.

    The chunk server's own write queue and lane threads, without its sockets: each answer is followed by
    the next put.
    """
    shared, rates = [], []
    with tempfile.TemporaryDirectory(prefix="puts-", dir=work) as directory:
        disk = CountingDisk(Path(directory) / "fragments")
        with open_engine(Path(directory), disk) as engine:
            loop = _Loop(engine, Payloads(KIB))
            for _ in range(runs):
                syncs = disk.syncs
                started = perf_counter()
                done = loop.run(seconds)
                rates.append(done / (perf_counter() - started))
                shared.append(done / max(1, disk.syncs - syncs))
            loop.close()
    beside = f"{median(rates):,.0f} puts/s"
    name = f"put 1 KiB, {IN_FLIGHT} in flight"
    return figure(name, shared, "a sync", target=20, at_least=True, beside=beside)


class _Loop:
    """A closed loop of puts through the write queue."""

    def __init__(self, engine: Engine, payloads: Payloads) -> None:
        self._lanes = Lanes({LANE: Lane(engine.run)})
        self._queue = WriteQueue()
        self._payloads = payloads
        self._fid = 0
        self._done = 0
        self._under_way = 0

    def run(self, seconds: float) -> int:
        """Puts that were acknowledged."""
        self._done = 0
        ends_at = perf_counter() + seconds
        for _ in range(IN_FLIGHT):
            self._put()
        self._take()
        while self._under_way:
            select.select([self._lanes.wake_fd], [], [])
            for result in self._lanes.results():
                if not isinstance(result, WriteDone):
                    raise BenchError(str(result))
                self._queue.finish(result, 0.0)
            if perf_counter() < ends_at:
                while self._under_way < IN_FLIGHT:
                    self._put()
            self._take()
        return self._done

    def close(self) -> None:
        self._lanes.close(5.0)

    def _put(self) -> None:
        def on_done(outcome: Outcome, now: float) -> list[Effect]:
            if outcome.error is not None:
                raise BenchError(outcome.error.message)
            self._under_way -= 1
            self._done += 1
            return []

        self._fid += 1
        self._under_way += 1
        self._queue.add(self._payloads.item(self._fid, Ticket(on_done, float("inf"))))

    def _take(self) -> None:
        for effect in self._queue.take(0.0):
            assert isinstance(effect, Run)
            assert isinstance(effect.job, WriteBatch)
            assert all(isinstance(item, StoreItem) for item in effect.job.items)
            self._lanes.submit(LANE, effect.job)
