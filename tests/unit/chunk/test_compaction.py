"""Compaction beside a writer: what moved can be read, what died stays dead, what rotted is not forgotten."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fabric.chunk.data_file import UNFINISHED_SUFFIX, file_name
from fabric.chunk.engine import Engine
from fabric.chunk.jobs import CompactDone, CompactFollow, CompactJob
from fabric.chunk.record import SUPERBLOCK_BYTES, record_bytes
from fabric.settings import Settings
from sim.disk import FakeDisk
from tests.unit.chunk.engine_bench import Bench, delete, item, payload_of

HOUR_MS = 3_600_000
SMALL_FILES = Settings(data_file_bytes_max=64 * 1024, reserve_bytes=0, checkpoint_bytes=2**40)
LENGTH = 1000


class Clock:
    def __init__(self) -> None:
        self.ms = 1000

    def __call__(self) -> int:
        return self.ms


def filled(count: int = 100, clock: Clock | None = None) -> Bench:
    """Fids 1 to ``count``, of 1000 bytes, in several files."""
    bench = Bench(settings=SMALL_FILES, wall_ms=clock or Clock())
    for fid in range(1, count + 1):
        bench.store(fid, length=LENGTH)
    return bench


def until(engine: Engine, step: str) -> CompactFollow:
    """Compact up to, and not including, this step."""
    done = engine.run(CompactJob(10_000, all_garbage=True))
    for _ in range(10_000):
        assert isinstance(done, CompactDone) and not done.idle
        if done.follow is not None and done.follow.step == step:
            return done.follow
        done = engine.run(done.follow or CompactJob(10_000, all_garbage=True))
    raise AssertionError(f"it never comes to {step}")


def finish(engine: Engine, follow: CompactFollow | None) -> None:
    while follow is not None:
        done = engine.run(follow)
        assert isinstance(done, CompactDone)
        follow = done.follow


def test_the_space_of_the_dead_comes_back_and_the_living_stay() -> None:
    bench = filled()
    used = sum(len(inode.content) for inode in bench.disk.files.values())
    for fid in range(1, 100):
        bench.write(delete(fid))
    bench.compact()
    assert bench.content(100, LENGTH) == payload_of(100, LENGTH)
    assert sum(len(inode.content) for inode in bench.disk.files.values()) < used // 4
    assert bench.engine.status().garbage_bytes == 0
    assert bench.without_index().live().keys() == {100}


def test_nothing_is_copied_where_nothing_lives() -> None:
    bench = filled()
    for fid in range(1, 101):
        bench.write(delete(fid))
    bench.disk.log.clear()
    bench.compact()
    # Only the tombstones are left to be copied.
    assert sum(count for what, _, count in bench.disk.log if what == "write") < 20_000


def test_what_is_deleted_while_it_is_copied_stays_dead_through_a_rebuild() -> None:
    bench = filled()
    for fid in range(1, 50):
        bench.write(delete(fid))
    follow = until(bench.engine, "switch")
    for fid in range(60, 70):
        bench.write(delete(fid))
    finish(bench.engine, follow)
    dead = set(range(1, 50)) | set(range(60, 70))
    assert bench.live().keys() == set(range(1, 101)) - dead
    assert bench.without_index().live().keys() == set(range(1, 101)) - dead


def test_a_tombstone_outlives_the_copy_that_compaction_made_of_its_fragment() -> None:
    """Deleted between copying and switching: the old file goes, and the new one holds the fragment."""
    clock = Clock()
    bench = filled(clock=clock)
    for fid in range(1, 50):
        bench.write(delete(fid))
    follow = until(bench.engine, "switch")
    bench.write(delete(60))
    finish(bench.engine, follow)
    clock.ms += 2 * HOUR_MS
    bench.engine.run(CompactFollow("write", "seal"))
    bench.scrub()
    bench.compact(all_garbage=False)
    assert 60 not in bench.without_index().live()


def test_a_tombstone_goes_with_its_file_once_nothing_needs_it_and_it_is_old() -> None:
    clock = Clock()
    bench = filled(clock=clock)
    for fid in range(1, 101):
        bench.write(delete(fid))
    bench.write(delete(5000))
    bench.compact()
    assert sum(1 for _ in bench.engine._index.scan()) == 101, "younger than an hour"
    clock.ms += 2 * HOUR_MS
    bench.scrub()
    bench.compact()
    assert sum(1 for _ in bench.engine._index.scan()) == 0
    assert bench.engine.status().data_bytes == 0
    assert bench.without_index().live() == {}


def test_a_repair_beside_compaction_wins() -> None:
    bench = filled()
    for fid in range(1, 50):
        bench.write(delete(fid))
    entry = bench.engine._index.get(60)
    assert entry is not None
    bench.disk.flip(file_name(entry.file), entry.offset + 100)
    assert bench.content(60, LENGTH) == "BAD_CHECKSUM"
    follow = until(bench.engine, "switch")
    bench.write(item(60, length=LENGTH))
    finish(bench.engine, follow)
    assert bench.content(60, LENGTH) == payload_of(60, LENGTH)
    assert bench.without_index().content(60, LENGTH) == payload_of(60, LENGTH)


def test_a_damaged_record_is_moved_and_can_still_be_repaired() -> None:
    bench = filled()
    for fid in [*range(1, 50), *range(90, 96)]:
        bench.write(delete(fid))
    entry = bench.engine._index.get(60)
    assert entry is not None
    bench.disk.flip(file_name(entry.file), entry.offset + 100)
    bench.compact()
    moved = bench.engine._index.get(60)
    assert moved is not None and moved.file != entry.file
    assert file_name(entry.file) not in bench.disk.names()
    assert bench.engine.status().quarantined == 1
    assert bench.content(60, LENGTH) == "BAD_CHECKSUM"
    bench.store(60, length=LENGTH)
    assert bench.content(60, LENGTH) == payload_of(60, LENGTH)
    assert bench.engine.status().quarantined == 0


@pytest.mark.parametrize("payload_too", [False, True])
def test_a_record_without_a_readable_header_is_not_forgotten(payload_too: bool) -> None:
    """With a sound payload it is even healed: the index knows what its header said."""
    bench = filled()
    for fid in [*range(1, 50), *range(90, 96)]:
        bench.write(delete(fid))
    entry = bench.engine._index.get(60)
    assert entry is not None
    bench.disk.flip(file_name(entry.file), entry.offset + 9)
    if payload_too:
        bench.disk.flip(file_name(entry.file), entry.offset + 100)
    assert bench.content(60, LENGTH) == "BAD_CHECKSUM"
    bench.compact()
    assert file_name(entry.file) not in bench.disk.names()
    assert 60 in bench.live()
    assert bench.content(60, LENGTH) == ("BAD_CHECKSUM" if payload_too else payload_of(60, LENGTH))
    bench.store(60, length=LENGTH)
    assert bench.content(60, LENGTH) == payload_of(60, LENGTH)
    assert bench.without_index().content(60, LENGTH) == payload_of(60, LENGTH)


def test_a_reader_that_holds_an_old_entry_finds_the_new_place() -> None:
    bench = filled()
    for fid in range(1, 50):
        bench.write(delete(fid))
    follow = until(bench.engine, "remove")
    assert bench.content(60, LENGTH) == payload_of(60, LENGTH)
    finish(bench.engine, follow)
    assert bench.content(60, LENGTH) == payload_of(60, LENGTH)


def test_without_room_it_is_given_up_and_nothing_is_left_of_it() -> None:
    bench = Bench(FakeDisk(), settings=SMALL_FILES)
    for fid in range(1, 101):
        bench.store(fid, length=LENGTH)
    for fid in range(1, 101, 2):
        bench.write(delete(fid))
    bench.disk.capacity = bench.disk.capacity - bench.disk.free_bytes() + 20_000
    names = bench.disk.names()
    done = bench.compact()
    assert done.idle
    assert set(bench.disk.names()) >= set(names)
    assert not any(name.endswith(UNFINISHED_SUFFIX) for name in bench.disk.names())
    assert bench.live().keys() == set(range(2, 101, 2))
    assert bench.codes(delete(2)) == [""]


def test_garbage_of_the_file_that_is_appended_to_comes_back_when_asked_for() -> None:
    bench = Bench(settings=SMALL_FILES)
    bench.store(1, 2, length=LENGTH)
    bench.write(delete(1))
    assert bench.compact(all_garbage=False).idle
    assert len(bench.disk.names()) == 1
    bench.compact()
    assert bench.engine.status().garbage_bytes == 0
    assert bench.content(2, LENGTH) == payload_of(2, LENGTH)


def test_a_failing_disk_is_reported_and_costs_nothing() -> None:
    bench = filled()
    for fid in range(1, 50):
        bench.write(delete(fid))
    until(bench.engine, "switch")
    bench = filled()
    for fid in range(1, 50):
        bench.write(delete(fid))
    bench.disk.fail_syncs = 1
    done = bench.compact()
    assert "fdatasync failed" in done.compaction.problem
    assert "fdatasync failed" in done.status.read_only_reason
    assert bench.live().keys() == set(range(50, 101))
    assert bench.killed().live().keys() == set(range(50, 101))


def test_many_small_files_become_one() -> None:
    bench = Bench(settings=SMALL_FILES)
    for fid in range(1, 13):
        bench.store(fid, length=LENGTH)
        bench.engine.run(CompactFollow("write", "seal"))
    bench.compact(all_garbage=False)
    assert len(bench.disk.names()) == 2
    assert bench.live().keys() == set(range(1, 13))


def test_offsets_and_sizes_are_those_of_one_copy_after_the_other() -> None:
    bench = filled(10)
    bench.write(delete(1))
    bench.compact()
    entries = sorted(entry.offset for _, entry in bench.engine._index.scan() if not entry.is_tombstone)
    assert entries[0] == SUPERBLOCK_BYTES
    assert {after - before for before, after in pairwise(entries)} == {record_bytes(LENGTH)}


def test_deletes_that_go_on_do_not_prolong_what_was_asked_for() -> None:
    bench = filled(400)
    for fid in range(1, 50):
        bench.write(delete(fid))
    dead = 50
    done = bench.engine.run(CompactJob(200_000, all_garbage=True))
    for _ in range(2000):
        assert isinstance(done, CompactDone)
        if done.idle:
            break
        if done.follow is None and dead < 400:
            bench.write(delete(dead))
            dead += 1
        done = bench.engine.run(done.follow or CompactJob(200_000, all_garbage=True))
    assert isinstance(done, CompactDone) and done.idle
    assert dead < 400, "it ended while there was still something to delete"
    bench.compact()
    assert bench.engine.status().garbage_bytes == 0, "asked again, it gives the rest back"
