"""What the disk can do: appends made durable by fdatasync, as the fabric's replicas need them.

One thread and one file per copy, at the same time and on the same file system as the fabric's data.
Every thread appends as many objects as there are writers at work, in pieces of at most a fragment,
then calls fdatasync, and so on; within a long stream it also syncs once a window, so that the disk
works while bytes are copied.  Files are preallocated, so that a sync need not change the file's size.
An object counts when all of its copies are durable.  This is more generous than what the fabric has to
do: no checksum, no index, no catalog, and always as many writes behind one sync as could be.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
from pathlib import Path
from time import perf_counter

from bench.stats import Sample
from fabric.settings import FRAGMENT_BYTES_MAX, Settings

FILE_BYTES_MAX = 512 * 1024 * 1024


def append_durably(directory: Path, object_bytes: int, group: int, seconds: float, copies: int = 3) -> Sample:
    """Objects stored in ``copies`` files: ``group`` objects to a sync, for so long or until a file is full.

    Latencies are those of a group.  Raises OSError when the disk has no room.
    """
    with tempfile.TemporaryDirectory(prefix="disk-", dir=directory) as temporary:
        barrier = threading.Barrier(copies)
        writers = [
            _Writer(Path(temporary) / f"copy-{index}", object_bytes, group, seconds, barrier)
            for index in range(copies)
        ]
        threads = [threading.Thread(target=writer.run, daemon=True) for writer in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for writer in writers:
        if writer.failure is not None:
            raise writer.failure
    durable = min(writers, key=lambda writer: len(writer.latencies_s))
    objects = len(durable.latencies_s) * group
    each = [latency for latency in durable.latencies_s for _ in range(group)]
    return Sample(each, objects * object_bytes, max(writer.elapsed_s for writer in writers))


class _Writer:
    """One copy."""

    def __init__(
        self, path: Path, object_bytes: int, group: int, seconds: float, barrier: threading.Barrier
    ) -> None:
        self.latencies_s: list[float] = []
        self.elapsed_s = 0.0
        self.failure: OSError | threading.BrokenBarrierError | None = None
        self._path = path
        self._group_bytes = object_bytes * group
        self._sync_bytes = Settings().client_window_bytes
        self._seconds = seconds
        self._barrier = barrier
        self._piece = memoryview(random.Random(0).randbytes(min(self._group_bytes, FRAGMENT_BYTES_MAX)))

    def run(self) -> None:
        """Write until the time is up or the file is full."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, max(FILE_BYTES_MAX, self._group_bytes))
                os.fsync(descriptor)
                self._barrier.wait()
                self._write_groups(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, threading.BrokenBarrierError) as error:
            self.failure = error
            self._barrier.abort()

    def _write_groups(self, descriptor: int) -> None:
        started = perf_counter()
        offset = synced = 0
        while True:
            before = perf_counter()
            end = offset + self._group_bytes
            while offset < end:
                offset += os.pwrite(descriptor, self._piece[: end - offset], offset)
                if offset - synced >= self._sync_bytes or offset == end:
                    os.fdatasync(descriptor)
                    synced = offset
            now = perf_counter()
            self.latencies_s.append(now - before)
            self.elapsed_s = now - started
            if self.elapsed_s >= self._seconds or offset + self._group_bytes > FILE_BYTES_MAX:
                return
