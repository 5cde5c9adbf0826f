"""Cuts a stream of buffers into fragments.  Pure: buffers in, fragments out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fabric.settings import FRAGMENT_BYTES_MAX

Buffer = bytes | bytearray | memoryview
Parts = Sequence[memoryview]
"""The bytes of one fragment, in the pieces in which they came."""


class Splitter:
    """Collects what arrives and gives whole fragments as soon as there is one.

    Buffers are kept by reference and not joined: whoever stores a fragment copies its parts once, to where
    they shall be.
    """

    def __init__(self, fragment_bytes: int = FRAGMENT_BYTES_MAX) -> None:
        self._fragment_bytes = fragment_bytes
        self._parts: list[memoryview] = []
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes that do not fill a fragment yet."""
        return self._held_bytes

    def feed(self, data: Buffer) -> Iterator[Parts]:
        """Take bytes; yields each fragment that is now full.  Exhaust the iterator."""
        view = memoryview(data)
        while self._held_bytes + len(view) >= self._fragment_bytes:
            missing = self._fragment_bytes - self._held_bytes
            self._parts.append(view[:missing])
            view = view[missing:]
            yield self._take()
        if len(view):
            self._parts.append(view)
            self._held_bytes += len(view)

    def rest(self) -> Parts | None:
        """The last, shorter fragment; None when nothing is held."""
        return self._take() if self._parts else None

    def _take(self) -> Parts:
        parts, self._parts, self._held_bytes = self._parts, [], 0
        return parts
