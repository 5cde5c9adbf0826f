"""The trial of the disk: what it tells, what it leaves, and when the server is read-only for it."""

from __future__ import annotations

import pytest

from fabric.chunk.disk_check import NAME, TRIAL_BYTES
from fabric.chunk.jobs import CheckDiskJob, DiskChecked
from tests.unit.chunk.engine_bench import Bench, item


class PowerCut(Exception):
    """Nothing runs any more."""


def check(bench: Bench) -> DiskChecked:
    done = bench.engine.run(CheckDiskJob())
    assert isinstance(done, DiskChecked)
    return done


def test_a_sound_disk_is_timed_step_by_step_and_left_as_it_was() -> None:
    bench = Bench(wall_ms=lambda: 1_700_000_000_000)
    bench.store(1, 2)
    now_us = 5_000_000
    costs_us = {f"write {NAME}": 1_000, f"sync {NAME}": 10_000, f"read {NAME}": 100}

    def pass_time(what: str) -> None:
        nonlocal now_us
        now_us += costs_us.get(what, 0)

    bench.disk.step = bench.disk.glance = pass_time
    bench.engine._clock_us = lambda: now_us
    before = dict(bench.disk.files)

    done = check(bench)
    assert (done.check.write_us, done.check.sync_us, done.check.read_us) == (1_000, 10_000, 100)
    assert (done.check.bytes, done.check.problem, done.check.running) == (TRIAL_BYTES, "", False)
    assert done.check.checked_at_ms == 1_700_000_000_000
    assert done.status.read_only_reason == ""
    assert ("write", NAME, TRIAL_BYTES) in bench.disk.log
    assert bench.disk.files == before


def test_a_failed_sync_makes_the_server_read_only_for_good() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.fail_syncs = 1
    done = check(bench)
    assert done.check.problem == "injected: fdatasync failed"
    assert done.status.read_only_reason == "disk check: injected: fdatasync failed"
    assert NAME not in bench.disk.names()

    # The disk seems well again; what it lost nobody knows.
    assert check(bench).check.problem == ""
    assert bench.engine.status().read_only_reason == "disk check: injected: fdatasync failed"


def test_a_failed_read_makes_it_read_only() -> None:
    bench = Bench()
    bench.disk.fail_reads = True
    done = check(bench)
    assert done.check.problem == "injected: read failed"
    assert done.status.read_only_reason == "disk check: injected: read failed"


def test_a_disk_that_gives_back_other_bytes_is_found_out() -> None:
    bench = Bench()

    def rot(what: str) -> None:
        if what == f"read {NAME}":
            bench.disk.flip(NAME, TRIAL_BYTES - 1)

    bench.disk.glance = rot
    done = check(bench)
    assert "other bytes were read back" in done.check.problem
    assert "other bytes were read back" in done.status.read_only_reason
    assert done.check.sync_us == 0, "the bench has no clock"


@pytest.mark.parametrize("fault", ["full", "cannot write", "cannot create"])
def test_what_endangers_no_record_is_only_told(fault: str) -> None:
    bench = Bench()
    bench.store(1)
    if fault == "full":
        bench.disk.short_write_bytes = 4096
    elif fault == "cannot write":
        bench.disk.fail_writes = True
    else:
        # A directory in the place of the file cannot be removed like one, nor written to.
        bench.disk.create(NAME)
        bench.disk.remove = refuse  # type: ignore[method-assign]
    done = check(bench)
    assert done.check.problem
    assert done.status.read_only_reason == ""


def refuse(name: str) -> None:
    from fabric.errors import DiskFailed

    raise DiskFailed(f"{name}: cannot be removed")


def test_a_trial_that_died_at_any_step_leaves_nothing_behind_a_start() -> None:
    steps = 0
    while True:
        bench = Bench()
        bench.store(1, 2)
        left = steps

        def cut(what: str) -> None:
            nonlocal left
            if left == 0:
                raise PowerCut
            left -= 1

        bench.disk.step = cut
        try:
            check(bench)
        except PowerCut:
            bench.disk.step = lambda what: None
            survivors = [bench.disk.crash(lambda change: change.size), bench.disk.crash()]
            for disk in survivors:
                after = bench.crashed(disk)
                assert NAME not in disk.names()
                assert sorted(after.live()) == [1, 2]
                assert check(after).check.problem == ""
            steps += 1
            continue
        break
    assert steps == 4, "create, write, sync, remove"


def test_writing_goes_on_after_a_trial() -> None:
    bench = Bench()
    check(bench)
    assert bench.codes(item(1)) == [""]
    assert bench.crashed().live().keys() == {1}
