"""Fragments read straight from the files of chunk servers on this machine.

Where a driver and a chunk server share a machine, sending a fragment through two sockets costs several
times what reading it costs.  So the driver says in its questions which machine it is on, and a chunk server
of the same machine answers with the place of the payload instead of its bytes (HDFS calls this a
short-circuit read).

Nothing is trusted but the checksum that the catalog has: the whole fragment is read and verified, as a
replica does.  A file that is gone, may not be read, or holds other bytes at that place means only that the
fragment is asked for in the usual way, whose replicas are then checked and repaired.

Files stay open for a moment, so that small fragments cost one system call; not longer, since a
file that compaction has removed gives its space back only when it is closed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import xxhash

from fabric.node.host import host_id
from fabric.places import Places
from fabric.settings import KIB
from fabric.wire.messages import FragmentRef

OPEN_S = 3.0
"""A file is closed so long after it was opened."""
AT_ONCE_BYTES_MAX = 64 * KIB
"""Smaller ones are read by the event loop itself if they need no disk."""
THREADS = 2
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
DENIED_S = 30.0
"""For so long a directory that may not be read is not tried again."""

Otherwise = Callable[[], Awaitable[memoryview]]


class NearPiece:
    """Implements ``Deferred``: bytes of a fragment, in a file of a chunk server."""

    def __init__(
        self, file: str, position: int, fragment: FragmentRef, inside: int, size: int, otherwise: Otherwise
    ) -> None:
        self._file = file
        self._position = position
        self._fragment = fragment
        self._inside = inside
        self._size = size
        self._otherwise = otherwise

    def __len__(self) -> int:
        return self._size

    def load(self) -> memoryview | None:
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
            data, found = _read(descriptor, self._position, self._fragment.length)
        except OSError:
            return None
        if len(data) != self._fragment.length or found != self._fragment.checksum:
            return None
        return memoryview(data)[self._inside : self._inside + self._size]

    async def otherwise(self) -> memoryview:
        return await self._otherwise()


class NearFiles:
    """Reads fragments at places that chunk servers have told.  Use inside a running event loop."""

    def __init__(self, is_on: bool = True, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._host = host_id() if is_on else ""
        self._monotonic_s = monotonic_s
        self._open: dict[str, tuple[int, float]] = {}
        self._denied: dict[str, float] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="near")
        self._timer: asyncio.TimerHandle | None = None
        self._places = Places()
        self.deferring = 0
        """Readers at work whose pieces may be read by others."""
        self.count = 0
        """Fragments read so."""

    @property
    def host(self) -> str:
        """What to say in a question; empty when bytes are wanted in any case.

        So it is for a while when files could not be opened: each place that is of no use costs a question.
        """
        if self._denied and self._monotonic_s() < max(self._denied.values()):
            return ""
        return self._host

    def deferred(
        self, fragment: FragmentRef, inside: int, size: int, otherwise: Otherwise
    ) -> NearPiece | None:
        """Bytes of a fragment to be read later where it was last read; None when they had better be read now.

        So it is when they are few, when there is no such place or its file cannot be opened, and while there
        are fewer readers than processors: then one thread reads while another sends.  What is deferred and
        only on the disk is fetched meanwhile.
        """
        if size <= AT_ONCE_BYTES_MAX or self.deferring < PROCESSORS:
            return None
        place = self.place_of(fragment.fid)
        if place is None:
            return None
        file, position = place
        try:
            descriptor = self._descriptor(file)
        except OSError:
            return None
        if _read_at_once(descriptor, position + fragment.length - 1, 1) is None:
            self._threads.submit(_fetch, os.dup(descriptor), position, fragment.length)
        return NearPiece(file, position, fragment, inside, size, otherwise)

    def place_of(self, fid: int) -> tuple[str, int] | None:
        """Where it was last read."""
        host = self.host
        return self._places.find(fid, host) if host else None

    async def read_again(self, fragment: FragmentRef) -> memoryview | None:
        """The payload at the place where it was last read, if it is still there: nobody is asked."""
        place = self.place_of(fragment.fid)
        if place is None:
            return None
        data = await self.read(*place, fragment.length, fragment.checksum)
        if data is None:
            self._places.forget(fragment.fid)
        return data

    def keep(self, fid: int, file: str, position: int) -> None:
        """It was read there."""
        self._places.keep(fid, self._host, file, position)

    async def read(self, file: str, position: int, length: int, checksum: int) -> memoryview | None:
        """The payload at a place, if these are the bytes with that checksum (xxh3-64)."""
        if self._denied and self._denied.get(os.path.dirname(file), 0.0) > self._monotonic_s():
            return None
        try:
            descriptor = self._descriptor(file)
            data: bytes | memoryview | None = None
            if length <= AT_ONCE_BYTES_MAX:
                data = _read_at_once(descriptor, position, length)
            if data is not None and len(data) == length:
                found = xxhash.xxh3_64_intdigest(data)
            else:
                data, found = await self._read_in_thread(descriptor, position, length)
        except FileNotFoundError:
            return None
        except OSError:
            self._denied[os.path.dirname(file)] = self._monotonic_s() + DENIED_S
            return None
        if len(data) != length or found != checksum:
            return None
        self.count += 1
        return memoryview(data)

    async def _read_in_thread(self, descriptor: int, position: int, length: int) -> tuple[bytes, int]:
        # A copy of its own: the file may be closed while the thread reads.
        own = os.dup(descriptor)
        return await asyncio.get_running_loop().run_in_executor(self._threads, _read, own, position, length)

    def _descriptor(self, file: str) -> int:
        found = self._open.get(file)
        if found is not None:
            return found[0]
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self._open[file] = (descriptor, self._monotonic_s())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(OPEN_S, self._close_old)
        return descriptor

    def _close_old(self) -> None:
        self._timer = None
        now = self._monotonic_s()
        for file, (descriptor, opened_at) in list(self._open.items()):
            if now - opened_at >= OPEN_S:
                os.close(descriptor)
                del self._open[file]
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(OPEN_S, self._close_old)

    def close(self) -> None:
        """Close all files; reads under way end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._threads.shutdown()
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()


def _read(descriptor: int, position: int, length: int) -> tuple[bytes, int]:
    """The bytes and their checksum; closes the descriptor."""
    try:
        data = os.pread(descriptor, length, position)
    finally:
        os.close(descriptor)
    return data, xxhash.xxh3_64_intdigest(data)


def _fetch(descriptor: int, position: int, length: int) -> None:
    """Have the system begin to read from the disk; closes the descriptor."""
    with suppress(OSError):
        os.posix_fadvise(descriptor, position, length, os.POSIX_FADV_WILLNEED)
    os.close(descriptor)


def _read_at_once(descriptor: int, position: int, length: int) -> memoryview | None:
    """What is in memory of it; None when the system cannot tell, or would have to wait for the disk."""
    buffer = bytearray(length)
    try:
        size = os.preadv(descriptor, [buffer], position, os.RWF_NOWAIT)
    except OSError:
        return None
    return memoryview(buffer)[:size].toreadonly()
