"""Deleted fragments came back when a file that compaction was about to remove stayed on the disk.

A tombstone was given up because the file with what it deletes was to go.  When that file then stayed (the
process was killed between two removals, or a removal failed) and the index was lost, the file told
of a live fragment, and nothing else knew better.
"""

from __future__ import annotations

import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.jobs import CompactDone, CompactJob
from fabric.errors import DiskFailed
from sim.disk import PowerCut
from tests.unit.chunk.crash_scenes import SETTINGS
from tests.unit.chunk.engine_bench import Bench, delete


class Clock:
    """Tombstones are old enough when they are wanted to be."""

    ms = 1000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def a_record_and_its_tombstone_in_two_files(clock: Clock) -> Bench:
    """Fragment 1 lies in the first file, its tombstone in the second, which is compacted first."""
    bench = Bench(settings=SETTINGS, wall_ms=clock)
    for fid in range(1, 10):
        bench.store(fid)
    for fid in (1, 6, 7, 8, 9):
        bench.write(delete(fid))
    clock.ms += 10**6
    return bench


def refuse_to_remove(bench: Bench, name: str, error: Exception) -> None:
    def look(what: str) -> None:
        if what == f"remove {name}":
            raise error

    bench.disk.step = look


def test_a_kill_between_two_removals(clock: Clock) -> None:
    bench = a_record_and_its_tombstone_in_two_files(clock)
    refuse_to_remove(bench, file_name(1), PowerCut())
    with pytest.raises(PowerCut):
        bench.compact()
    bench.disk.step = lambda what: None
    assert file_name(1) in bench.disk.names() and file_name(2) not in bench.disk.names()

    assert bench.killed().live().keys() == {2, 3, 4, 5}
    assert bench.without_index().live().keys() == {2, 3, 4, 5}


def test_a_removal_that_fails_and_a_later_compaction(clock: Clock) -> None:
    """Fragment 2 is deleted between its copying and its switch: its tombstone knows of the copy."""
    bench = a_record_and_its_tombstone_in_two_files(clock)
    refuse_to_remove(bench, file_name(1), DiskFailed("injected"))
    done = bench.engine.run(CompactJob(2**20, all_garbage=True))
    assert isinstance(done, CompactDone) and done.follow is not None
    bench.write(delete(2))
    while done.follow is not None:
        done = bench.engine.run(done.follow)
        assert isinstance(done, CompactDone)
    assert file_name(1) in bench.disk.names()
    bench.disk.step = lambda what: None

    clock.ms += 10**6
    bench.scrub()
    bench.compact()
    assert bench.without_index().live().keys() == {3, 4, 5}


def test_what_a_compaction_has_left_is_removed_by_the_next_start(clock: Clock) -> None:
    bench = a_record_and_its_tombstone_in_two_files(clock)
    refuse_to_remove(bench, file_name(1), DiskFailed("injected"))
    bench.compact()
    bench.disk.step = lambda what: None

    after = bench.killed()

    assert file_name(1) not in after.disk.names()
    clock.ms += 10**6
    after.compact()
    assert after.live().keys() == after.without_index().live().keys() == {2, 3, 4, 5}
