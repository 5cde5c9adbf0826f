"""Compaction, with readers, writers and deletes beside it at every step, and killed at each."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from fabric.chunk.jobs import CompactDone, CompactJob
from sim.crashes import keep_all, ways_to_crash
from sim.disk import FakeDisk, PowerCut
from sim.index import MemoryIndexHome
from tests.unit.chunk.crash_scenes import (
    Scene,
    old_tombstones,
    three_files_with_garbage,
    tombstones_apart_from_what_they_delete,
)
from tests.unit.chunk.engine_bench import Bench

PREPARATIONS = [three_files_with_garbage, old_tombstones, tombstones_apart_from_what_they_delete]
Company = Callable[["Shift"], object]


@pytest.fixture(autouse=True)
def few_entries_are_switched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.chunk.compaction.SWITCH_COUNT", 2)


class Shift:
    """One compaction from its first job to its last, with something beside it at chosen moments.

    A moment is before a change of the disk or index, or before a read.  The write lane may do something
    only while the background lane works and between the jobs; readers come at any moment.
    """

    def __init__(self, prepare: Callable[[Scene], object], company: dict[int, Company], cut_at: int = 0):
        self.scene = Scene()
        prepare(self.scene)
        self.happened: Counter[str] = Counter()
        self.next_fid = 7000
        self.lane = ""
        self.moments = 0
        self._company = company
        self._inside = False
        self.scene.begin(cut_at=cut_at)
        self.scene.beside = self._on_moment
        with suppress(PowerCut):
            self._compact()
        self.scene.beside = lambda what: None
        self.scene.cut_at = 0

    def _compact(self) -> None:
        job: object = CompactJob(1, all_garbage=True)
        while True:
            self.lane = getattr(job, "lane", "background")
            done = self.scene.bench.engine.run(job)
            self.lane = ""
            assert isinstance(done, CompactDone)
            if done.idle:
                return
            self._on_moment("between")
            job = done.follow or CompactJob(1, all_garbage=True)

    def _on_moment(self, what: str) -> None:
        if self._inside:
            return
        self.moments += 1
        company = self._company.get(self.moments)
        if company is None or (self.lane == "write" and company is not read_all):
            return
        self._inside = True
        try:
            company(self)
        finally:
            self._inside = False
        self.happened[company.__name__] += 1


def read_all(shift: Shift) -> None:
    """Every fragment has its bytes or is gone, at this very moment."""
    ledger = shift.scene.ledger
    for fid in [*ledger.live, *ledger.dead]:
        ledger.check_content(shift.scene.bench, fid)


def store_one(shift: Shift) -> None:
    shift.next_fid += 1
    shift.scene.store(shift.next_fid)


def delete_first(shift: Shift) -> None:
    if shift.scene.ledger.live:
        shift.scene.delete(min(shift.scene.ledger.live))


def delete_last(shift: Shift) -> None:
    old = [fid for fid in shift.scene.ledger.live if fid < 7000]
    if old:
        shift.scene.delete(max(old))


def delete_all(shift: Shift) -> None:
    shift.scene.delete(*shift.scene.ledger.live)


def repair_one(shift: Shift) -> None:
    """The copy that is being compacted is damaged, and replaced by a good one."""
    scene = shift.scene
    scene.store(6999)  # proves that what comes before it was once sound
    fid = min(scene.ledger.live)
    scene.rot(fid)
    scene.store(6998)
    content = scene.bench.content(fid)
    if content == "BAD_CHECKSUM" and scene.ledger.store(scene.bench, fid) == [""]:
        scene.ledger.damaged.discard(fid)


def store_again(shift: Shift) -> None:
    """Of what is there the same answer, of what is dead a conflict."""
    ledger, bench = shift.scene.ledger, shift.scene.bench
    for fid in [*ledger.live][:3]:
        assert ledger.store(bench, fid) == [""]
    for fid in [fid for fid, at in ledger.dead.items() if at == shift.scene.now_ms][:3]:
        assert ledger.store(bench, fid) == ["CONFLICT"]


COMPANIES: list[Company] = [
    read_all,
    store_one,
    delete_first,
    delete_last,
    delete_all,
    repair_one,
    store_again,
]


def check_life_after(scene: Scene, disk: FakeDisk, home: MemoryIndexHome) -> None:
    """A start on this: the ledger holds, also by the data files alone, and after another compaction."""
    ledger = copy.deepcopy(scene.ledger)
    bench = Bench(disk, home, scene.bench.settings, lambda: scene.now_ms)
    ledger.settle(bench)
    ledger.check_rebuild(bench)
    bench.compact()
    ledger.check(bench)
    rebuilt = Bench(bench.disk.crash(keep_all), MemoryIndexHome(), bench.settings, bench.wall_ms)
    ledger.settle(rebuilt)


@pytest.mark.parametrize("prepare", PREPARATIONS)
@pytest.mark.parametrize("company", COMPANIES)
def test_fault_25_something_happens_beside_compaction_at_every_step(
    company: Company, prepare: Callable[[Scene], object]
) -> None:
    moments = Shift(prepare, {}).moments
    assert moments > 60
    happened = 0
    for moment in range(1, moments + 1):
        shift = Shift(prepare, {moment: company})
        happened += shift.happened.total()
        try:
            scene = shift.scene
            scene.ledger.check(scene.bench)
            assert not [name for name in scene.disk.names() if name.endswith(".new")]
            assert scene.bench.engine._compaction.status().problem == ""
            check_life_after(scene, scene.disk.crash(), scene.home.crash())
        except Exception as error:
            error.add_note(f"{company.__name__} at moment {moment} of {moments}")
            raise
    assert happened > moments // 3


@pytest.mark.parametrize("prepare", PREPARATIONS)
def test_fault_25_compaction_is_killed_at_each_step_with_readers_writers_and_deletes_beside_it(
    prepare: Callable[[Scene], object],
) -> None:
    happened: Counter[str] = Counter()
    step = 0
    while True:
        step += 1
        rng = random.Random(step)
        company = {moment: rng.choice(COMPANIES) for moment in range(1, 400) if rng.random() < 0.06}
        shift = Shift(prepare, company, cut_at=step)
        scene = shift.scene
        happened += shift.happened
        was_cut = len(scene.steps) >= step
        try:
            puts = scene.home.unsynced
            for way in rng.sample(ways_to_crash(rng), 3):
                check_life_after(scene, way(scene.disk), scene.home.crash(rng.randint(0, puts)))
            check_life_after(scene, scene.disk, scene.home.crash(puts))  # kill -9
        except Exception as error:
            error.add_note(f"killed before step {step}: {scene.steps[-1:]}")
            raise
        if not was_cut:
            break
    assert step > 30
    rare = {one.__name__: happened[one.__name__] for one in COMPANIES if happened[one.__name__] < 3}
    assert not rare
