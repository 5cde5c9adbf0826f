"""Digests computed on threads, so that the event loop goes on moving bytes meanwhile.

One digest hashes one batch at a time.  While a batch is hashed the next is collected; a caller that is
faster than the hash waits, which bounds memory at two batches per stream.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Protocol

from fabric.driver.registry.digests import Buffer, NewDigest

BATCH_BYTES = 1024 * 1024
"""Large enough that a hand-over to a thread costs little beside the hashing of it."""


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> _Hash: ...


class ThreadedDigest:
    """A ``RunningDigest`` that hashes on an executor's threads."""

    def __init__(self, executor: Executor, algorithm: str) -> None:
        self.algorithm = algorithm
        self.size = 0
        self._executor = executor
        self._hash: _Hash = hashlib.new(algorithm)
        self._collected: list[Buffer] = []
        self._collected_bytes = 0
        self._running: asyncio.Future[None] | None = None

    async def update(self, data: Buffer) -> None:
        self._collected.append(data)
        self._collected_bytes += len(data)
        self.size += len(data)
        if self._collected_bytes >= BATCH_BYTES:
            await self._wait_for_running()
            self._start_batch()

    async def settle(self) -> None:
        await self._wait_for_running()
        if self._collected:
            self._start_batch()
            await self._wait_for_running()

    def copy(self) -> ThreadedDigest:
        assert self._is_settled(), "a copy of a digest that is still being computed"
        twin = ThreadedDigest(self._executor, self.algorithm)
        twin.size = self.size
        twin._hash = self._hash.copy()
        return twin

    def value(self) -> str:
        assert self._is_settled(), "the value of a digest that is still being computed"
        return self._hash.hexdigest()

    def _is_settled(self) -> bool:
        return self._running is None and not self._collected

    def _start_batch(self) -> None:
        batch, self._collected, self._collected_bytes = self._collected, [], 0
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._executor, _hash_all, self._hash, batch)

    async def _wait_for_running(self) -> None:
        if self._running is not None:
            await self._running
            self._running = None


def _hash_all(running: _Hash, batch: Sequence[Buffer]) -> None:
    for data in batch:
        running.update(data)


def digests_on(executor: Executor) -> NewDigest:
    """A maker of digests that hash on ``executor``."""

    def new_digest(algorithm: str) -> ThreadedDigest:
        return ThreadedDigest(executor, algorithm)

    return new_digest
