"""Clients that put and get all the time, and remember how long each call took."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import NamedTuple

import uvloop

from bench.errors import BenchError
from bench.stats import percentile
from fabric.driver.fabric_store import FabricStore
from fabric.errors import FabricError
from fabric.settings import FRAGMENT_BYTES_MAX, MIB

NAMES_PER_WRITER = 16
"""A writer replaces its own objects in turn, so that what is stored does not grow without end."""


class Call(NamedTuple):
    """One call of a client."""

    kind: str
    """``put`` or ``get``."""
    begun: float
    """On the clock of ``time.monotonic``."""
    seconds: float
    error: str
    """Empty: it succeeded."""


class Traffic:
    """So many writers and readers of one proxy, in a thread of their own.

    A context manager: leaving it finishes the calls that are under way.
    """

    def __init__(
        self,
        proxy: str,
        names: list[str],
        *,
        writers: int = 8,
        readers: int = 8,
        put_bytes: int = MIB,
        pause_s: float = 0.0,
    ) -> None:
        """Readers get ``names``; ``pause_s``: of each client between two calls."""
        self._proxy = proxy
        self._names = names
        self._writers, self._readers = writers, readers
        self._payload = random.Random(1).randbytes(put_bytes)
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), name="traffic")
        self._calls: list[Call] = []

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def calls(self, kind: str, since: float, until: float = float("inf")) -> list[Call]:
        """Those that were under way at some time between the two."""
        return [
            call
            for call in list(self._calls)
            if call.kind == kind and call.begun <= until and call.begun + call.seconds >= since
        ]

    def wait_calls(self, count: int) -> None:
        """Until so many calls of each kind are done.  Raises BenchError."""
        until = monotonic() + 60
        while any(len(self.calls(kind, 0.0)) < count for kind in ("put", "get")):
            if monotonic() > until or not self._thread.is_alive():
                raise BenchError(f"fewer than {count} puts and gets in a minute")
            self._stop.wait(0.02)

    def wait_for(self, seconds: float) -> None:
        """Let it go on for so long.  Raises BenchError when the clients have ended."""
        self._stop.wait(seconds)
        if not self._thread.is_alive():
            raise BenchError("the clients ended")

    async def _run(self) -> None:
        store = FabricStore(self._proxy)
        await store.start()
        try:
            writers = [self._write(store, number) for number in range(self._writers)]
            readers = [self._read(store, random.Random(number)) for number in range(self._readers)]
            await asyncio.gather(*writers, *readers)
        finally:
            await store.close()

    async def _write(self, store: FabricStore, number: int) -> None:
        index = 0
        while not self._stop.is_set():
            path = f"traffic/{number}/{index % NAMES_PER_WRITER}"
            await self._note("put", lambda path=path: store.put(path, self._payload))  # type: ignore[misc]
            index += 1

    async def _read(self, store: FabricStore, rng: random.Random) -> None:
        async def get() -> object:
            path = rng.choice(self._names)
            reader = await store.open(path, 0, MIB)
            try:
                return [piece async for piece in reader]
            finally:
                await reader.close()

        while not self._stop.is_set():
            await self._note("get", get)

    async def _note(self, kind: str, ask: Callable[[], Awaitable[object]]) -> None:
        begun, error = monotonic(), ""
        try:
            await ask()
        except FabricError as failure:
            error = f"{failure.code}: {failure.message}"
        self._calls.append(Call(kind, begun, monotonic() - begun, error))
        if self._pause_s:
            await asyncio.sleep(self._pause_s)


def fill(proxy: str, prefix: str, count: int, object_bytes: int) -> list[str]:
    """Store so many immutable objects, some at a time; their names.  Raises FabricError."""
    names = [f"{prefix}/{number}" for number in range(count)]
    uvloop.run(_fill(proxy, names, object_bytes))
    return names


async def _fill(proxy: str, names: list[str], object_bytes: int) -> None:
    store = FabricStore(proxy)
    await store.start()
    payload = random.Random(2).randbytes(object_bytes)
    at_once = 16 if object_bytes < MIB else 4
    todo = iter(names)

    async def work() -> None:
        for name in todo:
            await store.put(name, payload, immutable=True)

    assert object_bytes <= FRAGMENT_BYTES_MAX
    try:
        await asyncio.gather(*(work() for _ in range(at_once)))
    finally:
        await store.close()


def failed(calls: Iterable[Call]) -> list[Call]:
    """Those that did not succeed."""
    return [call for call in calls if call.error]


def longest_s(calls: Iterable[Call]) -> float:
    """The longest of them; 0.0 when there are none."""
    return max((call.seconds for call in calls), default=0.0)


def p99_s(calls: Iterable[Call]) -> float:
    """The latency that 99 of 100 do not exceed."""
    return percentile([call.seconds for call in calls], 0.99)
