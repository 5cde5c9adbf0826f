"""Cuts a stream of buffers into fragments.  Pure: bytes in, fragments out."""

from __future__ import annotations

from collections.abc import Iterator

from fabric.settings import FRAGMENT_BYTES_MAX

Buffer = bytes | bytearray | memoryview


class Splitter:
    """Collects what arrives and gives whole fragments as soon as there is one.

    Buffers are kept by reference and joined once per fragment; a buffer that holds a whole fragment
    by itself is sliced, not copied.
    """

    def __init__(self, fragment_bytes: int = FRAGMENT_BYTES_MAX) -> None:
        self._fragment_bytes = fragment_bytes
        self._parts: list[memoryview] = []
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes that do not fill a fragment yet."""
        return self._held_bytes

    def feed(self, data: Buffer) -> Iterator[Buffer]:
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

    def rest(self) -> Buffer | None:
        """The last, shorter fragment; None when nothing is held."""
        return self._take() if self._parts else None

    def _take(self) -> Buffer:
        parts, self._parts, self._held_bytes = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)
