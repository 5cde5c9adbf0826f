"""Copies of deleted fragments in files that stay.

A compaction that was cut leaves a file whose copies the index did not all know: a start accounts for them.
The file then holds little garbage and stays, while everything else of that time is compacted away.  A
tombstone whose fragment has a copy in it must stay as well.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.jobs import CompactDone, CompactJob
from fabric.chunk.record import SUPERBLOCK_BYTES
from sim.disk import PowerCut
from tests.unit.chunk.crash_scenes import KEEP_S, RECORD, SETTINGS, Scene, cut_before
from tests.unit.chunk.engine_bench import Bench

IN_A_FILE = 20
LARGE = msgspec.structs.replace(SETTINGS, data_file_bytes_max=SUPERBLOCK_BYTES + IN_A_FILE * RECORD)


def copied_and_cut(deleted: int, *, puts: int) -> Scene:
    """Fragments 11 to 20 are copied; the power goes after so many puts of the switch.

    Fragment ``deleted`` is deleted after its copying when nothing is switched, else after the next start.
    """
    scene = Scene(LARGE)
    scene.store_one_by_one(1, IN_A_FILE)
    scene.store(100)
    scene.delete(*range(1, 11))
    scene.bench.engine._writer.checkpoint()  # so that no start reads the old files again
    done = scene.bench.engine.run(CompactJob(2**20))
    assert isinstance(done, CompactDone) and done.follow is not None
    if not puts:
        scene.delete(deleted)
    scene.beside = cut_before("index put", puts + 1)
    with suppress(PowerCut):
        while isinstance(done, CompactDone) and done.follow is not None:
            done = scene.bench.engine.run(done.follow)
    scene.beside = lambda what: None
    scene.start_on(scene.disk.crash(), scene.home.crash(scene.home.unsynced))
    scene.ledger.settle(scene.bench)
    if puts:
        scene.delete(deleted)
    return scene


def compact_by_ratio(bench: Bench) -> None:
    bench.compact(all_garbage=False)


@pytest.mark.parametrize(("deleted", "puts"), [(12, 0), (20, 0), (20, 1), (12, 1), (20, 2), (12, 2)])
def test_a_tombstone_stays_while_a_cut_compaction_has_left_a_copy(
    deleted: int, puts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.chunk.compaction.SWITCH_COUNT", 4)
    scene = copied_and_cut(deleted, puts=puts)
    output = next(number for number in (3, 4) if scene.bench.engine._files.get(number) is not None)
    assert scene.bench.engine._files.get(output).is_compacted  # type: ignore[union-attr]
    compact_by_ratio(scene.bench)
    assert file_name(1) not in scene.disk.names()

    # Everything that was written around then becomes garbage: the file of the tombstone goes.
    scene.store_one_by_one(200, 240)
    scene.delete(100, *range(200, 241))
    scene.wait(KEEP_S + 1)
    scene.store_one_by_one(300, 330)
    for _ in range(3):
        compact_by_ratio(scene.bench)
        scene.wait(KEEP_S + 1)
    assert file_name(2) not in scene.disk.names()
    assert file_name(output) in scene.disk.names(), "the copies are still there"
    scene.ledger.check(scene.bench)
    scene.ledger.check_rebuild(scene.bench)


def test_a_tombstone_stays_while_the_damaged_copy_that_was_repaired_is_there() -> None:
    """There are two records of what it deletes; the file of the good one goes first."""
    scene = Scene(LARGE)
    scene.store_one_by_one(1, IN_A_FILE)
    scene.store(100)
    scene.rot(5)
    scene.repair(5)
    scene.delete(5)
    scene.store_one_by_one(200, 240)
    scene.delete(100, *range(200, 241))
    scene.wait(KEEP_S + 1)
    scene.store_one_by_one(300, 330)
    for _ in range(3):
        compact_by_ratio(scene.bench)
        scene.wait(KEEP_S + 1)
    assert file_name(1) in scene.disk.names()
    assert file_name(2) not in scene.disk.names()
    scene.ledger.check(scene.bench)
    scene.ledger.check_rebuild(scene.bench)
