"""A power cut tore one copy of a new file's superblock, and the next start left it so for good."""

from __future__ import annotations

import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.record import SUPERBLOCK_BYTES, decode_superblock
from tests.unit.chunk.engine_bench import Bench


@pytest.mark.parametrize("place", [20, SUPERBLOCK_BYTES // 2 + 20])
def test_a_start_makes_both_copies_of_a_new_superblock_sound(place: int) -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.flip(file_name(1), place)
    after = bench.crashed()
    assert after.live().keys() == {1}
    content = bytes(after.disk.files[file_name(1)].durable[:SUPERBLOCK_BYTES])
    half = SUPERBLOCK_BYTES // 2
    assert content[:half] == content[half:]
    assert decode_superblock(content) is not None
