"""The part of a blob under way that is in memory: what came from the upstream and is not surely stored.

Readers at the head of the transfer are served from here.  What is stored durably leaves, so that memory
is bounded whatever readers do; one that is behind reads from the store.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class _Piece(NamedTuple):
    start: int
    data: bytes


class Window:
    """Consecutive pieces.  Positions are counted from the blob's beginning."""

    def __init__(self) -> None:
        self.start = 0
        """Of the first byte that is here."""
        self.end = 0
        """Of the byte that comes next."""
        self._pieces: deque[_Piece] = deque()

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.end - self.start

    def add(self, data: bytes) -> None:
        """More bytes, not empty."""
        assert data, "an empty piece is no piece"
        self._pieces.append(_Piece(self.end, data))
        self.end += len(data)

    def drop_before(self, position: int) -> None:
        """Let go of every piece that ends there or before."""
        while self._pieces and self._pieces[0].start + len(self._pieces[0].data) <= position:
            self._pieces.popleft()
        self.start = self._pieces[0].start if self._pieces else self.end

    def read(self, position: int, end: int) -> memoryview | None:
        """Bytes from ``position`` on, not beyond ``end``; None when there are none in memory."""
        if not self.start <= position < min(self.end, end):
            return None
        # Readers are at the head, mostly.
        for piece in reversed(self._pieces):
            if piece.start <= position:
                return memoryview(piece.data)[position - piece.start : end - piece.start]
        raise AssertionError("pieces cover the window")
