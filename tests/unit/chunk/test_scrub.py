"""The scrub reads everything that counts, keeps its place, and tells what is bad."""

from __future__ import annotations

import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.index import Counters
from fabric.chunk.jobs import ScrubDone, ScrubJob
from fabric.chunk.scrub import Slice
from fabric.ids import bucket_of
from fabric.settings import Settings
from tests.unit.chunk.engine_bench import Bench, delete

DAY_MS = 24 * 3_600_000
SETTINGS = Settings(data_file_bytes_max=64 * 1024, reserve_bytes=0, checkpoint_bytes=2**40)
COUNT = 300


class Clock:
    def __init__(self) -> None:
        self.ms = DAY_MS

    def __call__(self) -> int:
        return self.ms


def filled(clock: Clock | None = None) -> Bench:
    bench = Bench(settings=SETTINGS, wall_ms=clock or Clock())
    for fid in range(1, COUNT + 1):
        bench.store(fid, length=500)
    return bench


def step(bench: Bench, *, anew: bool = False, bytes_max: int = 2000) -> ScrubDone:
    done = bench.engine.run(ScrubJob(bytes_max, anew))
    assert isinstance(done, ScrubDone)
    return done


def flip(bench: Bench, fid: int, place: int) -> None:
    entry = bench.engine._index.get(fid)
    assert entry is not None
    bench.disk.flip(file_name(entry.file), entry.offset + place)


def test_every_record_is_read_once() -> None:
    bench = filled()
    bench.write(delete(7), delete(9000))
    done = bench.scrub()
    assert done[-1].scrub.records == COUNT + 1
    assert done[-1].scrub.damaged == 0
    assert sum(slice_.cost_bytes for slice_ in done) > done[-1].scrub.read_bytes > COUNT * 500 * 0.99
    assert done[-1].scrub.progress == 1.0


@pytest.mark.parametrize("place", [9, 300], ids=["header", "payload"])
def test_damage_is_found_quarantined_and_reported_with_what_a_good_copy_is(place: int) -> None:
    bench = filled()
    flip(bench, 77, place)
    done = bench.scrub()
    found = [entry for slice_ in done for entry in slice_.damaged]
    assert [(entry.fid, entry.length) for entry in found] == [(77, 500)]
    assert done[-1].scrub.damaged == 1
    assert bench.engine.status().quarantined == 1
    bench.store(77, length=500)
    assert bench.engine.status().quarantined == 0


def test_a_slice_reads_about_so_many_bytes() -> None:
    bench = filled()
    done = bench.scrub(bytes_max=3000)
    assert max(slice_.cost_bytes for slice_ in done) < 3000 + 600 + 7 * 16 * 1024


def test_the_place_is_kept_across_a_kill() -> None:
    bench = filled()
    flip(bench, 77, 300)
    step(bench, anew=True)
    while step(bench).scrub.records < COUNT // 2:
        pass
    before = step(bench).scrub
    again = bench.killed()
    after = step(again).scrub
    assert before.records < after.records < before.records + 20
    assert after.started_at_ms == before.started_at_ms
    while step(again).scrub.running:
        pass
    assert step(again).idle
    assert again.engine.run(ScrubJob(1)).scrub.records == COUNT


def test_a_pass_begins_by_itself_when_the_interval_is_over() -> None:
    clock = Clock()
    bench = filled(clock)
    bench.scrub()
    assert step(bench).idle
    clock.ms += int(SETTINGS.scrub_interval_s * 1000) - 1
    assert step(bench).idle
    clock.ms += 1
    assert step(bench).scrub.running
    assert step(bench).scrub.passes == 1


def test_a_wall_clock_set_back_does_not_put_it_off() -> None:
    clock = Clock()
    bench = filled(clock)
    clock.ms = 900 * DAY_MS
    bench.scrub()
    clock.ms = 10 * DAY_MS
    assert step(bench).scrub.running


def test_an_order_begins_anew() -> None:
    bench = filled()
    step(bench, anew=True)
    assert step(bench).scrub.records > 0
    assert step(bench, anew=True).scrub.records <= 5


def test_an_unreadable_disk_makes_the_server_read_only_with_the_reason() -> None:
    bench = filled()
    bench.disk.fail_reads = True
    done = step(bench, anew=True)
    while done.scrub.records == 0:
        done = step(bench)
    assert "read failed" in done.status.read_only_reason
    assert done.damaged


def test_an_index_that_has_lost_a_row_is_condemned_and_rebuilt() -> None:
    bench = filled()
    bench.engine._index.put([(77, None)], Counters())
    done = step(bench, anew=True)
    while not done.status.restart_reason:
        assert done.scrub.running
        done = step(bench)
    assert f"bucket {bucket_of(77)}" in done.status.restart_reason
    assert bench.home.condemned
    again = bench.killed()
    assert 77 in again.live()
    assert any("rebuilding" in note for note in again.engine.notes)


def test_a_row_that_changed_meanwhile_is_no_damage() -> None:
    """Deleted between the look at the index and the look at the disk."""
    bench = filled()
    scrub = bench.engine._scrub
    entry = bench.engine._index.get(77)
    assert entry is not None
    flip(bench, 77, 300)
    bench.write(delete(77))
    step(bench, anew=True)
    done = Slice()
    scrub._verify(77, entry, done)
    assert done.damaged == []
    assert bench.engine.status().quarantined == 0
