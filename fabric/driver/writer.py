"""Appends a stream to one object: fragments stored side by side, attached in order.

Fragments are attached while the stream goes on (every ``ATTACH_EVERY`` fragments, or when the oldest
one has waited ``ATTACH_AFTER_S``), so that an interrupted upload keeps what it has and no fid outlives
its lease.  Each attach says which size the object must have; whoever comes second gets Precondition.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from fabric.driver.splitter import Buffer, Splitter
from fabric.errors import FabricError
from fabric.settings import FRAGMENT_BYTES_MAX, FRAGMENTS_PER_PAGE_MAX
from fabric.wire.messages import AnyOperation, AppendOperation, FragmentRef, ObjectInfo

ATTACH_EVERY = 16
ATTACH_AFTER_S = 20.0

StoreFragment = Callable[[Buffer], Awaitable[FragmentRef]]
Commit = Callable[[Sequence[AnyOperation]], Awaitable[list[ObjectInfo | None]]]


class Writer:
    """Implements ``ObjectWriter``."""

    def __init__(self, store: StoreFragment, commit: Commit, path: str, size: int, window_bytes: int) -> None:
        self.size = size
        self._store = store
        self._commit = commit
        self._path = path
        self._attached = size
        self._splitter = Splitter()
        self._window = max(1, window_bytes // FRAGMENT_BYTES_MAX)
        self._tasks: deque[asyncio.Task[FragmentRef]] = deque()
        self._attaching = asyncio.Lock()
        self._oldest_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_task: asyncio.Task[None] | None = None
        self._failure: FabricError | None = None

    async def write(self, data: Buffer) -> None:
        """Take bytes; waits while the window is full.  Raises what storing an earlier fragment raised."""
        if self._failure is not None:
            raise self._failure
        self.size += len(data)
        for fragment in self._splitter.feed(data):
            await self._begin(fragment)

    async def flush(self) -> int:
        """Store the rest and attach everything; returns the durable size."""
        rest = self._splitter.rest()
        if rest is not None:
            await self._begin(rest)
        await self._attach(everything=True)
        self._stop_timer()
        return self._attached

    async def abort(self) -> None:
        """Forget what was not attached."""
        self._stop_timer()
        tasks = [*self._tasks] + ([self._timer_task] if self._timer_task is not None else [])
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, fragment: Buffer) -> None:
        unfinished = [task for task in self._tasks if not task.done()]
        if len(unfinished) >= self._window:
            await asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
        self._tasks.append(asyncio.ensure_future(self._store(fragment)))
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(ATTACH_AFTER_S, self._on_timer)
        if len(self._tasks) >= ATTACH_EVERY + self._window:
            await self._attach(everything=False)

    async def _attach(self, everything: bool) -> None:
        """Attach stored fragments in order: all of them, or those that are already finished.

        When one could not be stored, those before it are attached, and its error is raised.
        """
        async with self._attaching:
            failure: FabricError | None = self._failure
            while self._tasks and failure is None:
                fragments: list[FragmentRef] = []
                while self._tasks and len(fragments) < FRAGMENTS_PER_PAGE_MAX and failure is None:
                    if not everything and not self._tasks[0].done():
                        break
                    try:
                        fragments.append(await self._tasks[0])
                        self._tasks.popleft()
                    except FabricError as error:
                        failure = error
                if not fragments:
                    break
                await self._commit([AppendOperation(self._path, fragments, self._attached)])
                self._attached += sum(fragment.length for fragment in fragments)
            if failure is not None:
                self._failure = failure
                raise failure

    def _on_timer(self) -> None:
        self._timer = None
        if self._tasks:
            self._timer_task = asyncio.ensure_future(self._attach_in_background())

    async def _attach_in_background(self) -> None:
        try:
            await self._attach(everything=False)
        except FabricError as error:
            self._failure = error  # raised by the next write or flush

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
