"""Buffers cut for system calls: the same bytes, never many at once."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fabric.node.disk import Buffer
from fabric.node.pieces import BUFFERS_PER_CALL_MAX, PIECE_BYTES, cut
from fabric.settings import KIB, MIB

LENGTHS = st.sampled_from([0, 1, 72, KIB, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, MIB])


@given(st.lists(LENGTHS, max_size=20))
def test_pieces_are_the_same_bytes_and_none_is_large(lengths: list[int]) -> None:
    rng = random.Random(3)
    buffers: list[Buffer] = [rng.randbytes(length) for length in lengths]
    pieces = list(cut(buffers))
    assert b"".join(buffer for piece in pieces for buffer in piece) == b"".join(buffers)
    sizes = [sum(map(len, piece)) for piece in pieces]
    assert all(size == PIECE_BYTES for size in sizes[:-1])
    assert all(0 < size <= PIECE_BYTES for size in sizes[-1:])


@given(st.integers(0, 3 * BUFFERS_PER_CALL_MAX), st.integers(1, 400))
def test_one_call_takes_the_buffers_of_a_piece(count: int, length: int) -> None:
    data = random.Random(count).randbytes(count * length)
    buffers = [memoryview(data)[position * length :][:length] for position in range(count)]
    pieces = list(cut(buffers))
    assert b"".join(buffer for piece in pieces for buffer in piece) == data
    assert all(0 < len(piece) <= BUFFERS_PER_CALL_MAX for piece in pieces)
    assert sum(map(len, pieces)) <= count + len(pieces)
