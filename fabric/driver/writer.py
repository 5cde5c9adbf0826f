"""Appends a stream to one object: fragments stored side by side, attached in order.

Fragments are attached while the stream goes on (every ``ATTACH_EVERY`` fragments, or when the oldest
one has waited ``ATTACH_AFTER_S``), so that an interrupted upload keeps what it has and no fid outlives
its lease.  Each attach says which size the object must have; whoever comes second gets Precondition.

What is attached is always a prefix of what was written.  So a fragment leaves the queue only when a
commit that names it was confirmed; a commit goes on when the caller that waited for it is cancelled;
and the first failure, or a cancelled ``write``, is the end of the writer: everything later raises.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

from fabric.driver.splitter import Buffer, Parts, Splitter
from fabric.errors import FabricError, Unavailable
from fabric.settings import FRAGMENT_BYTES_MAX, FRAGMENTS_PER_PAGE_MAX
from fabric.wire.messages import AnyOperation, AppendOperation, FragmentRef, ObjectInfo

ATTACH_EVERY = 16
ATTACH_AFTER_S = 20.0

StoreFragment = Callable[[Parts], Awaitable[FragmentRef]]
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
        self._stores: deque[asyncio.Task[FragmentRef]] = deque()
        """Fragments that are not attached, in order."""
        self._attaching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._broken = False
        """A store failed; the next attach finds out which."""
        self._failure: FabricError | None = None

    async def write(self, data: Buffer) -> None:
        """Take bytes; waits while the window is full.  Raises what storing an earlier fragment raised."""
        self._check()
        self.size += len(data)
        await self._begin(self._splitter.feed(data))

    async def flush(self) -> int:
        """Store the rest and attach everything; returns the durable size."""
        self._check()
        rest = self._splitter.rest()
        if rest is not None:
            await self._begin([rest])
        while self._stores:
            await self._attach(len(self._stores))
        self._stop_timer()
        return self._attached

    async def abort(self) -> None:
        """Forget what was not attached."""
        self._stop_timer()
        self._failure = self._failure or Unavailable(f"{self._path}: this write was given up")
        tasks = [*self._stores, *([self._attaching] if self._attaching is not None else [])]
        self._stores.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _begin(self, fragments: Iterable[Parts]) -> None:
        try:
            for fragment in fragments:
                await self._begin_one(fragment)
        except asyncio.CancelledError:
            # Some of these bytes will not be stored, so nothing behind them may be.
            self._failure = Unavailable(f"{self._path}: a write was interrupted")
            raise

    async def _begin_one(self, fragment: Parts) -> None:
        unfinished = [task for task in self._stores if not task.done()]
        if len(unfinished) >= self._window:
            await asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
        self._check()
        self._stores.append(asyncio.create_task(self._store_one(fragment)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ATTACH_AFTER_S, self._on_timer)
        if self._broken:
            await self._attach(len(self._stores))
        elif (finished := self._finished()) >= ATTACH_EVERY:
            await self._attach(finished)

    async def _store_one(self, fragment: Parts) -> FragmentRef:
        try:
            return await self._store(fragment)
        except FabricError:
            self._broken = True
            raise

    def _finished(self) -> int:
        """How many stores at the head of the queue have ended."""
        for position, task in enumerate(self._stores):
            if not task.done():
                return position
        return len(self._stores)

    async def _attach(self, count: int) -> None:
        """Wait for the first ``count`` fragments and attach them.

        When one could not be stored, those before it are attached, and its error is raised.  A caller
        that is cancelled while it waits here leaves the work going on.
        """
        while self._attaching is not None and not self._attaching.done():
            await asyncio.wait([self._attaching])
        self._check()
        attaching = self._attaching = asyncio.create_task(self._attach_first(count))
        await asyncio.wait([attaching])
        self._check()
        attaching.result()

    async def _attach_first(self, count: int) -> None:
        """Raises no FabricError: it is kept for whoever waits for this, or writes or flushes next."""
        stores = list(islice(self._stores, count))
        for start in range(0, len(stores), FRAGMENTS_PER_PAGE_MAX):
            await self._attach_page(stores[start : start + FRAGMENTS_PER_PAGE_MAX])
            if self._failure is not None:
                for task in self._stores:
                    task.cancel()
                return

    async def _attach_page(self, stores: list[asyncio.Task[FragmentRef]]) -> None:
        fragments: list[FragmentRef] = []
        failure: FabricError | None = None
        try:
            for task in stores:
                fragments.append(await task)
        except FabricError as error:
            failure = error
        try:
            if fragments:
                await self._commit([AppendOperation(self._path, fragments, self._attached)])
        except FabricError as error:
            self._failure = error
            return
        self._attached += sum(fragment.length for fragment in fragments)
        for _ in fragments:
            self._stores.popleft()
        self._failure = self._failure or failure

    def _on_timer(self) -> None:
        self._timer = None
        if not self._stores or self._failure is not None:
            return
        self._timer = asyncio.get_running_loop().call_later(ATTACH_AFTER_S, self._on_timer)
        if self._attaching is None or self._attaching.done():
            self._attaching = asyncio.create_task(self._attach_first(len(self._stores)))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
