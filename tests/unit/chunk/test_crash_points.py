"""The engine is stopped before every single step, in everything that it does.

After each stop the disk is left in several ways that its contract allows (see ``sim/crashes.py``), the
index with any part of what it had not made durable, and a new engine starts.  Then the ledger must hold,
the new engine must go on as if nothing had been, and the data files alone must tell the same.
"""

from __future__ import annotations

import copy
from contextlib import suppress

import pytest

from fabric.errors import DiskFailed, NoSpace
from sim.crashes import keep_all, ways_to_crash
from sim.disk import FakeDisk
from sim.index import MemoryIndexHome
from tests.unit.chunk.crash_scenes import KEEP_S, PLAYS, Play, Scene, drive, some_randomness
from tests.unit.chunk.engine_bench import Bench, payload_of
from tests.unit.chunk.ledger import Ledger, known_kinds

pytestmark = pytest.mark.slow
EVERY_PLAY = pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)


@pytest.fixture(autouse=True)
def few_entries_are_switched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.chunk.compaction.SWITCH_COUNT", 2)


class Clock:
    """Wall clock of the engine that starts after the stop: milliseconds."""

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


def go_on(bench: Bench, ledger: Ledger, clock: Clock) -> None:
    """The life after: store, repair, delete, and compact until tombstones go; power cuts; a rebuild."""
    ledger.settle(bench)
    ledger.check_rebuild(bench)
    assert ledger.store(bench, 5001, 5002) == ["", ""]
    for fid in sorted(ledger.damaged):
        # It is damaged, or good in another place, or (its index row was lost) not there at all.
        assert bench.content(fid) in ("BAD_CHECKSUM", "NO_FRAGMENT", payload_of(fid))
        assert ledger.store(bench, fid) == [""]
        ledger.damaged.discard(fid)
    cut = Bench(bench.disk.crash(), bench.home.crash(), bench.settings, clock)
    copy.deepcopy(ledger).settle(cut)
    victims = sorted(ledger.live)
    for fid in {victims[0], victims[len(victims) // 2], victims[-1]}:
        assert ledger.delete(bench, fid) == [""]
    bench.compact()
    clock.ms += KEEP_S * 1000
    bench.compact()
    ledger.check(bench)
    after = Bench(bench.disk.crash(), bench.home.crash(), bench.settings, clock)
    ledger.settle(after)
    rebuilt = Bench(after.disk.crash(keep_all), MemoryIndexHome(), bench.settings, clock)
    ledger.settle(rebuilt)
    assert rebuilt.digest() == after.digest()


def start(scene: Scene, disk: FakeDisk, home: MemoryIndexHome) -> None:
    """A new engine on this, which then goes on; the scene and its ledger stay as they are."""
    disk.fail_syncs = disk.fail_directory_syncs = 0
    home.lost = home.lost and home.condemned
    clock = Clock(scene.now_ms + 1)
    go_on(Bench(disk, home, scene.bench.settings, clock), copy.deepcopy(scene.ledger), clock)


def crash_in_all_ways(scene: Scene, step: int) -> int:
    """Returns how many ways there were."""
    # A start that was cut has a disk and an index, and no engine yet.
    disk, home = scene.disk, scene.home
    puts = home.unsynced
    ways = ways_to_crash(some_randomness(step))
    for number, way in enumerate(ways):
        choices = {0, puts // 2, puts} if number < 2 else {some_randomness(step, number).randint(0, puts)}
        for count in choices:
            start(scene, way(disk), home.crash(count))
    start(scene, disk, home.crash(puts))  # kill -9: the system is alive
    return len(ways) + 1


@EVERY_PLAY
def test_a_stop_before_any_step_loses_nothing(play: Play) -> None:
    whole = drive(play)
    count = len(whole.steps)
    kinds = known_kinds(whole.steps)
    assert count >= play.steps_min, whole.steps
    assert all(kinds[kind] for kind in play.kinds), kinds
    for step in _steps_to_stop_at(count):
        scene = drive(play, cut_at=step)
        try:
            assert crash_in_all_ways(scene, step) >= 8
        except Exception as error:
            where = whole.steps[step - 1] if step <= count else "the end"
            error.add_note(f"stopped before step {step} of {count}: {where}")
            raise


def _steps_to_stop_at(count: int) -> list[int]:
    """All, and once behind the last; of very many that are alike a part."""
    return [*range(1, count + 1, max(1, count // 30 if count > 200 else 1)), count + 1]


@pytest.mark.parametrize("failure", [DiskFailed, NoSpace])
@EVERY_PLAY
def test_a_disk_that_fails_once_at_any_step_loses_nothing(
    play: Play, failure: type[DiskFailed | NoSpace]
) -> None:
    """Whatever goes on after the failure: nothing false is acknowledged, and the next start is a good one."""
    count = len(drive(play).steps)
    for step in _steps_to_stop_at(count):
        for power_cut in (False, True):
            scene = Scene(play.settings)
            play.prepare(scene)
            scene.failure = failure
            scene.begin(fail_at=step)
            with suppress(DiskFailed, NoSpace):
                play.act(scene)
            scene.fail_at = 0
            where = scene.steps[step - 1] if step <= len(scene.steps) else "the end"
            if not play.ends:
                # The same process goes on.
                scene.store(4000)
                scene.wait()
                scene.scrub()
                scene.compact()
                scene.ledger.check(scene.bench)
            disk, home = scene.disk, scene.home
            disk.fail_syncs = disk.fail_directory_syncs = 0
            try:
                if power_cut:
                    start(scene, disk.crash(), home.crash())
                else:
                    start(scene, disk, home.crash(home.unsynced))
            except Exception as error:
                error.add_note(f"failed at step {step} of {count}: {where}; power cut: {power_cut}")
                raise
