"""All blobs on their way: one transfer each, however many clients want it.

A transfer is nobody's: the clients only read from it.  When the last one has gone, it is given up, unless
most of the blob is here or little is missing; somebody will come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fabric.driver.registry.errors import too_many
from fabric.driver.registry.mirror.decisions import is_worth_finishing
from fabric.driver.registry.mirror.transfer import Transfer
from fabric.driver.registry.mirror.upstream import Upstream
from fabric.driver.registry.names import Digest
from fabric.driver.registry.service import Service

TOGETHER_MAX = 16
"""Each has up to a window of memory."""

WAITING_MAX = 256
"""Transfers that have begun or wait for others to end."""


class Transfers:
    """Of one registry process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._together = asyncio.Semaphore(TOGETHER_MAX)
        self._running: dict[tuple[str, Digest], tuple[Transfer, asyncio.Task[None]]] = {}

    async def close(self) -> None:
        """Give up all."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def reading(self, upstream: Upstream, name: str, there: str, digest: Digest) -> Iterator[Transfer]:
        """The transfer of a blob, begun unless it is under way.  Raises RegistryError TOOMANYREQUESTS."""
        key = (name, digest)
        if key not in self._running:
            self._begin(key, Transfer(self._service, upstream, name, there, digest))
        transfer, task = self._running[key]
        transfer.readers += 1
        try:
            yield transfer
        finally:
            transfer.readers -= 1
            is_wanted = transfer.readers or (
                transfer.size >= 0 and is_worth_finishing(transfer.received, transfer.size)
            )
            if not is_wanted and not transfer.is_over:
                # Whoever comes now begins anew.
                del self._running[key]
                task.cancel()

    def _begin(self, key: tuple[str, Digest], transfer: Transfer) -> None:
        if len(self._running) >= WAITING_MAX:
            raise too_many(f"{WAITING_MAX} blobs are on their way from upstreams")
        task = asyncio.create_task(self._run(transfer))
        self._running[key] = (transfer, task)

        def ended(_: asyncio.Task[None]) -> None:
            if self._running.get(key) == (transfer, task):
                del self._running[key]

        task.add_done_callback(ended)

    async def _run(self, transfer: Transfer) -> None:
        try:
            async with self._together:
                await transfer.run(self._service.wall_ms())
        finally:
            transfer.give_up()
