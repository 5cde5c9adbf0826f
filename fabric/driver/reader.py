"""Reads one object in order, some fragments ahead of the consumer.

The window starts at one fragment and grows only when the consumer had to wait for bytes: a fast one
soon has several reads under way, a slow one never holds more memory than it needs.

A fragment may be moved to another group while an object is read.  When no replica has it where the page said,
the page is asked for again, and what it says by then counts.

Reading ahead takes bytes from a budget that all readers share, and never waits for them.  The piece
that the consumer waits for is read in any case: readers that are slow to consume, and so hold on to
their part of the budget, cannot stop the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import xxhash

from fabric.errors import BadChecksum, FabricError, NoGoodCopy, NotFound, Unavailable
from fabric.settings import FRAGMENT_BYTES_MAX, Settings
from fabric.wire.messages import (
    FragmentData,
    FragmentRef,
    Fragments,
    GetFragment,
    ListFragments,
    ObjectData,
    ObjectInfo,
)

if TYPE_CHECKING:
    from fabric.driver.budget import ByteBudget
    from fabric.driver.client import Client
    from fabric.driver.near import NearFiles, NearPiece

BAD_CHECKSUM_TRIES = 3


class _Piece(msgspec.Struct):
    task: asyncio.Task[memoryview | NearPiece]
    budget_bytes: int
    """Taken from the budget for it."""


class Reader:
    """Implements ``ObjectReader``."""

    def __init__(
        self,
        client: Client,
        near: NearFiles,
        settings: Settings,
        budget: ByteBudget,
        opened: ObjectData,
        first: memoryview,
        end: int,
    ) -> None:
        self.info: ObjectInfo = opened.info
        self._client = client
        self._near = near
        self._patience_s = settings.request_timeout_s
        self._budget = budget
        self._first: memoryview | None = first
        self._position = opened.offset + len(first)
        self._end = end
        self._page: deque[FragmentRef] = deque(opened.fragments)
        self._page_start = opened.start
        self._ahead: deque[_Piece] = deque()
        self._closed = False
        self._defers = False
        self._window = 1
        self._window_max = max(1, settings.client_window_bytes // FRAGMENT_BYTES_MAX)

    def __aiter__(self) -> AsyncGenerator[memoryview, None]:
        return cast("AsyncGenerator[memoryview, None]", self._pieces())

    def deferred(self) -> AsyncGenerator[memoryview | NearPiece, None]:
        """Implements ``Defers``: whole fragments in files of this machine are not read yet."""
        if not self._defers:
            self._defers = True
            self._near.deferring += 1
        return self._pieces()

    async def _pieces(self) -> AsyncGenerator[memoryview | NearPiece, None]:
        try:
            first, self._first = self._first, None
            if first is not None and len(first):
                await self._read_ahead()
                yield first
            while self._ahead or self._position < self._end:
                if self._closed:
                    raise Unavailable(f"{self.info.path}: the reader was closed")
                if not self._ahead:
                    await self._begin(in_budget=True) or await self._begin(in_budget=False)
                elif not self._ahead[0].task.done() and self._window < self._window_max:
                    self._window += 1
                await self._read_ahead()
                piece = await self._ahead[0].task
                self._budget.release(self._ahead.popleft().budget_bytes)
                await self._read_ahead()
                yield piece
        finally:
            await self.close()

    async def close(self) -> None:
        """Give up reads under way; what was not given out by now never will be."""
        self._closed = True
        if self._defers:
            self._defers = False
            self._near.deferring -= 1
        while self._ahead:
            piece = self._ahead.popleft()
            piece.task.cancel()
            self._budget.release(piece.budget_bytes)

    async def _read_ahead(self) -> None:
        """Start reads until the window is full, the budget is, or nothing is left to read."""
        while self._position < self._end and len(self._ahead) < self._window:
            if not await self._begin(in_budget=True):
                return

    async def _begin(self, in_budget: bool) -> bool:
        """Start the next read; False when the budget has no room for it."""
        fragment, inside = await self._locate()
        size = min(fragment.length - inside, self._end - self._position)
        if in_budget and not self._budget.try_acquire(size):
            return False
        task = asyncio.create_task(self._read(fragment, inside, size, self._position))
        self._position += size
        self._ahead.append(_Piece(task, size if in_budget else 0))
        return True

    async def _locate(self) -> tuple[FragmentRef, int]:
        """The fragment at our position and the offset inside it; pages on where needed."""
        found = self._find()
        if found is None:
            answer = await self._list(self._position)
            self._page, self._page_start = deque(answer.fragments), answer.start
            found = self._find()
        if found is None:
            raise NoGoodCopy(f"{self.info.path}: no fragment is listed for byte {self._position}")
        return found

    async def _list(self, position: int) -> Fragments:
        request = ListFragments(0, self.info.object_id, position)
        answer, _ = await self._client.request(Fragments, request, patience_s=self._patience_s)
        return answer

    def _find(self) -> tuple[FragmentRef, int] | None:
        while self._page:
            fragment = self._page[0]
            if self._page_start <= self._position < self._page_start + fragment.length:
                return fragment, self._position - self._page_start
            self._page_start += fragment.length
            self._page.popleft()
        return None

    async def _read(
        self, fragment: FragmentRef, inside: int, size: int, position: int
    ) -> memoryview | NearPiece:
        read_now = partial(self._read_now, fragment, inside, size, position)
        piece = self._near.deferred(fragment, inside, size, read_now) if self._defers else None
        return piece if piece is not None else await read_now()

    async def _read_now(self, fragment: FragmentRef, inside: int, size: int, position: int) -> memoryview:
        try:
            return await self._read_from(fragment, inside, size, not_again=NoGoodCopy)
        except NoGoodCopy as error:
            try:
                page = await self._list(position)
            except NotFound:
                raise error from None  # the object was deleted meanwhile
            named = next((f for start, f in _places(page) if start == position - inside), fragment)
            return await self._read_from(named, inside, size)

    async def _read_from(
        self, fragment: FragmentRef, inside: int, size: int, not_again: type[FabricError] | None = None
    ) -> memoryview:
        again = await self._near.read_again(fragment)
        if again is not None:
            return again[inside : inside + size]
        near, missed = self._near.host, False
        for _ in range(BAD_CHECKSUM_TRIES):
            answer, data = await self._client.request(
                FragmentData,
                GetFragment(0, fragment, inside, size, near, missed),
                patience_s=self._patience_s,
                not_again=not_again,
            )
            near = ""
            missed = bool(answer.file)
            if answer.file:
                whole_data = await self._near.read(
                    answer.file, answer.position, fragment.length, fragment.checksum
                )
                if whole_data is not None:
                    self._near.keep(fragment.fid, answer.file, answer.position)
                    return whole_data[inside : inside + size]
                continue
            view: Any = memoryview(data)
            whole = size == fragment.length
            expected = fragment.checksum if whole else answer.checksum
            if len(view) == size and xxhash.xxh3_64_intdigest(view) == expected:
                return view  # type: ignore[no-any-return]
        raise BadChecksum(f"{self.info.path}: fragment {fragment.fid} arrives damaged again and again")


def _places(page: Fragments) -> Iterator[tuple[int, FragmentRef]]:
    """The fragments of a page, each with the offset of its first byte in the object."""
    start = page.start
    for fragment in page.fragments:
        yield start, fragment
        start += fragment.length
