"""Cuts buffers into lists that one system call may take, so that no thread copies for long at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fabric.node.disk import Buffer
from fabric.settings import KIB

PIECE_BYTES = 256 * KIB
"""Copied by one call.  Copying may take 3 ms a MiB where memory is scarce, and not every scheduler lets
another thread on the processor meanwhile, even when it has only a small message to pass on."""
BUFFERS_PER_CALL_MAX = 1024
"""IOV_MAX of Linux."""


def cut(buffers: Sequence[Buffer]) -> Iterator[list[Buffer]]:
    """The same bytes in lists, none empty, of at most ``PIECE_BYTES`` and ``BUFFERS_PER_CALL_MAX``."""
    piece: list[Buffer] = []
    room = PIECE_BYTES
    for buffer in buffers:
        view = memoryview(buffer)
        while len(view) >= room or (len(view) and len(piece) == BUFFERS_PER_CALL_MAX - 1):
            yield [*piece, view[:room]]
            view = view[room:]
            piece, room = [], PIECE_BYTES
        if len(view):
            piece.append(view)
            room -= len(view)
    if piece:
        yield piece
