"""A limit in bytes that tasks share, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """``acquire`` waits until its bytes fit; one request larger than the whole budget passes alone."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes handed out now."""
        return self._used

    async def acquire(self, size: int) -> None:
        """Take ``size`` bytes, waiting in line for them."""
        if self.try_acquire(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._let_in()  # those behind us may fit where we did not
            else:
                self.release(size)
            raise

    def try_acquire(self, size: int) -> bool:
        """Take ``size`` bytes if they fit and nobody stands in line for them."""
        if self._waiting or not self._fits(size):
            return False
        self._used += size
        return True

    def release(self, size: int) -> None:
        """Give bytes back and let those in line go on."""
        self._used -= size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if not self._fits(size):
                    return
                self._used += size
                turn.set_result(None)
            self._waiting.popleft()

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._bytes_max
