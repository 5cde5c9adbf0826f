"""A data file whose creation failed for lack of space came back after a power cut, as the newest one.

Its removal was not synced.  The file before it, to which the engine had gone on appending, then counted as
sealed, and a torn write at its end as rot: a fragment that was never acknowledged was there, and damaged.
"""

from __future__ import annotations

import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.record import SUPERBLOCK_BYTES
from sim.disk import Change, NameChange, PowerCut
from tests.unit.chunk.engine_bench import Bench, item

PART_BYTES = SUPERBLOCK_BYTES // 2 + 10
"""Of the superblock: one sound copy."""


def test_a_file_that_could_not_be_created_does_not_come_back_after_a_power_cut() -> None:
    bench = Bench()
    bench.store(1, 2, 3, length=20_000)
    bench.disk.short_write_bytes = PART_BYTES
    assert bench.codes(item(4, length=20_000)) == ["NO_SPACE"]
    bench.disk.short_write_bytes = None
    bench.disk.step = _cut_before_sync

    with pytest.raises(PowerCut):
        bench.store(5, 6)

    torn = bench.disk.crash(_most_survives)
    after = bench.crashed(torn)
    assert file_name(2) not in torn.names()
    assert after.live().keys() == {1, 2, 3, 5}  # 5 is whole, 6 is not
    assert after.engine.status().quarantined == 0


def _cut_before_sync(what: str) -> None:
    if what == f"sync {file_name(1)}":
        raise PowerCut(what)


def _most_survives(change: Change | NameChange) -> int:
    """No removal survives, and of the last write one record and a part of the second."""
    if isinstance(change, NameChange):
        return int(change.kind != "remove")
    return 300 if len(change.data) == 352 else change.size
