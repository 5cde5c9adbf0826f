"""Reads one object in order, some fragments ahead of the consumer.

The window starts at one fragment and grows only when the consumer had to wait for bytes: a fast one
soon has several reads under way, a slow one never holds more memory than it needs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import xxhash

from fabric.errors import BadChecksum, NoGoodCopy
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

BAD_CHECKSUM_TRIES = 3


class Reader:
    """Implements ``ObjectReader``."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        budget: ByteBudget,
        opened: ObjectData,
        first: memoryview,
        end: int,
    ) -> None:
        self.info: ObjectInfo = opened.info
        self._client = client
        self._patience_s = settings.request_timeout_s
        self._budget = budget
        self._first: memoryview | None = first
        self._position = opened.offset + len(first)
        self._end = end
        self._page: deque[FragmentRef] = deque(opened.fragments)
        self._page_start = opened.start
        self._ahead: deque[tuple[asyncio.Task[memoryview], int]] = deque()
        self._window = 1
        self._window_max = max(1, settings.client_window_bytes // FRAGMENT_BYTES_MAX)

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        try:
            await self._fill()
            first, self._first = self._first, None
            if first is not None and len(first):
                yield first
            while self._ahead:
                task, size = self._ahead[0]
                if not task.done() and self._window < self._window_max:
                    self._window += 1
                    await self._fill()
                piece = await task
                self._ahead.popleft()
                self._budget.release(size)
                await self._fill()
                yield piece
        finally:
            await self.close()

    async def close(self) -> None:
        """Give up reads under way."""
        while self._ahead:
            task, size = self._ahead.popleft()
            if not task.cancel() and not task.cancelled():
                task.exception()  # seen: the reader has given up on it
            self._budget.release(size)

    async def _fill(self) -> None:
        """Start reads until the window is full or nothing is left to read."""
        while self._position < self._end and len(self._ahead) < self._window:
            fragment, inside = await self._locate()
            size = min(fragment.length - inside, self._end - self._position)
            await self._budget.acquire(size)
            self._position += size
            self._ahead.append((asyncio.create_task(self._read(fragment, inside, size)), size))

    async def _locate(self) -> tuple[FragmentRef, int]:
        """The fragment at our position and the offset inside it; pages on where needed."""
        while True:
            while self._page:
                fragment = self._page[0]
                if self._position < self._page_start + fragment.length:
                    return fragment, self._position - self._page_start
                self._page_start += fragment.length
                self._page.popleft()
            request = ListFragments(0, self.info.object_id, self._position)
            answer, _ = await self._client.request(Fragments, request, patience_s=self._patience_s)
            if not answer.fragments:
                raise NoGoodCopy(f"{self.info.path}: its fragments end before byte {self._position}")
            self._page, self._page_start = deque(answer.fragments), answer.start

    async def _read(self, fragment: FragmentRef, inside: int, size: int) -> memoryview:
        for _ in range(BAD_CHECKSUM_TRIES):
            answer, data = await self._client.request(
                FragmentData, GetFragment(0, fragment, inside, size), patience_s=self._patience_s
            )
            view: Any = memoryview(data)
            whole = size == fragment.length
            expected = fragment.checksum if whole else answer.checksum
            if len(view) == size and xxhash.xxh3_64_intdigest(view) == expected:
                return view  # type: ignore[no-any-return]
        raise BadChecksum(f"{self.info.path}: fragment {fragment.fid} arrives damaged again and again")
