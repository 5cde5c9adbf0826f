"""Puts and gets of objects through the driver's store, as a Python client does them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from bench.load import drive
from bench.stats import Sample
from fabric.driver.fabric_store import FabricStore
from fabric.errors import Internal
from fabric.settings import FRAGMENT_BYTES_MAX, MIB

PIECE_BYTES = 1 * MIB
"""A stream hands its bytes over in such pieces."""
DATA_BYTES_MAX = 16 * MIB
"""A longer stream sends the same bytes over and over."""
FILLERS = 4
ONCE_MAX = 10_000
"""Objects that ``get-once`` can read."""


class Job(NamedTuple):
    """What one client process is to do."""

    operation: str
    """``put``, ``get``, ``get-mutable``, ``get-once``; ``fill``, ``fill-mutable``: write what those read."""
    object_bytes: int
    concurrency: int
    seconds: float
    bytes_max: int
    names: int
    """Of gets and fills: how many objects there are."""
    label: str
    """``put``: makes the names of this run unique."""
    first: int = 0
    """``get-once``: so many objects were read before.  They are read in one random order, each once."""


async def run_job(store: FabricStore, job: Job) -> Sample:
    """Do the job; see ``bench.load.drive``."""
    load = ObjectLoad(store, job)
    if job.operation.startswith("fill"):
        return await load.fill()
    operation = {"put": load.put, "get-once": load.get_once}.get(job.operation, load.get)
    return await drive(operation, job.concurrency, job.seconds, job.bytes_max)


def read_name(size: int, immutable: bool, number: int) -> str:
    """Of an object that gets read."""
    return f"bench/get/{'immutable' if immutable else 'mutable'}/{size}/{number:08d}"


class ObjectLoad:
    """The operations of one job."""

    def __init__(self, store: FabricStore, job: Job) -> None:
        self._store = store
        self._job = job
        self._immutable = not job.operation.endswith("-mutable")
        self._rng = random.Random(job.label)
        # Random bytes: nothing on the way shall profit from bytes that compress.
        size = 0 if job.operation.startswith("get") else min(job.object_bytes, DATA_BYTES_MAX)
        self._data = memoryview(self._rng.randbytes(size))
        self._once: Sequence[int] = ()
        if job.operation == "get-once":
            self._once = random.Random(job.names).sample(range(job.names), min(job.names, ONCE_MAX))[
                job.first :
            ]

    async def fill(self) -> Sample:
        """Write every object that gets will read, a few at a time.  Raises what a write raised."""
        numbers = iter(range(self._job.names))

        async def work() -> None:
            for number in numbers:
                await self._write(self._read_name(number))

        started = perf_counter()
        await asyncio.gather(*(work() for _ in range(FILLERS)))
        return Sample([], self._job.names * self._job.object_bytes, perf_counter() - started)

    async def put(self, number: int) -> int:
        """Write a new object; returns its size."""
        return await self._write(f"bench/put/{self._job.label}/{number}")

    async def get(self, _: int) -> int:
        """Read a whole object, any of them; returns its size."""
        return await self._read(self._rng.randrange(self._job.names))

    async def get_once(self, number: int) -> int:
        """Read a whole object that was not read before; returns its size."""
        return await self._read(self._once[number])

    async def _read(self, number: int) -> int:
        reader = await self._store.open(self._read_name(number))
        size = 0
        try:
            async for piece in reader:
                size += len(piece)
        finally:
            await reader.close()
        if size != self._job.object_bytes:
            raise Internal(f"{size} bytes came, {self._job.object_bytes} were written")
        return size

    async def _write(self, path: str) -> int:
        size = self._job.object_bytes
        if size <= FRAGMENT_BYTES_MAX:
            await self._store.put(path, self._data, immutable=self._immutable)
            return size
        await self._store.put(path, b"")
        writer = self._store.writer(path, 0)
        for start in range(0, size, PIECE_BYTES):
            at = start % DATA_BYTES_MAX
            await writer.write(self._data[at : at + min(PIECE_BYTES, size - start)])
        await writer.flush()
        return size

    def _read_name(self, number: int) -> str:
        return read_name(self._job.object_bytes, self._immutable, number)
