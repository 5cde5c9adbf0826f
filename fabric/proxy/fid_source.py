"""The proxy's stock of fids, leased from the master in ranges.

A range is used only in the first half of its lease, so that a fragment stored under one of its fids
can be committed for at least the other half.  What is left of a range then is thrown away: fids are
plenty, and one that was never used needs no return.
"""

from __future__ import annotations

from collections import deque

import msgspec


class _Range(msgspec.Struct):
    next: int
    end: int
    use_until: float


class FidSource:
    """Ranges in the order in which they came."""

    def __init__(self, low_water_count: int) -> None:
        self._ranges: deque[_Range] = deque()
        self._low_water_count = low_water_count

    def add(self, first: int, count: int, lease_s: float, asked_at: float) -> None:
        """A range that the master leased in answer to a request sent at ``asked_at``."""
        self._ranges.append(_Range(first, first + count, asked_at + lease_s / 2))

    def take(self, now: float) -> int | None:
        """A fid that was never handed out before; None when a new range is needed."""
        while self._ranges:
            head = self._ranges[0]
            if head.next < head.end and now < head.use_until:
                head.next += 1
                return head.next - 1
            self._ranges.popleft()
        return None

    def take_several(self, count: int, now: float) -> list[int]:
        """So many, or as many as there are."""
        fids: list[int] = []
        while len(fids) < count:
            fid = self.take(now)
            if fid is None:
                break
            fids.append(fid)
        return fids

    def clear(self) -> None:
        """Throw the stock away: the master no longer accepts its fids."""
        self._ranges.clear()

    def is_low(self, now: float) -> bool:
        """Is it time to ask for another range?"""
        left = sum(r.end - r.next for r in self._ranges if now < r.use_until)
        return left < self._low_water_count
