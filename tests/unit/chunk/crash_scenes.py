"""Scenes for tests that stop the engine at every step: what is prepared, and what then happens.

A step is a call that changes the disk or the index.  The same scene always takes the same steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import msgspec

from fabric.chunk.data_file import file_name
from fabric.chunk.jobs import CompactDone, CompactJob, ScrubDone, ScrubJob
from fabric.chunk.record import SUPERBLOCK_BYTES, record_bytes
from fabric.errors import DiskFailed, NoSpace
from fabric.settings import Settings
from sim.crashes import keep_all
from sim.disk import FakeDisk, PowerCut
from sim.index import MemoryIndexHome
from tests.unit.chunk.engine_bench import Bench, delete, item
from tests.unit.chunk.ledger import Ledger

RECORD = record_bytes(100)
KEEP_S = 50
SETTINGS = Settings(
    data_file_bytes_max=SUPERBLOCK_BYTES + 5 * RECORD,
    reserve_bytes=0,
    checkpoint_bytes=2**40,
    tombstone_keep_s=KEEP_S,
)


class Scene:
    """An engine, its ledger, and a count of steps; the n-th may be the last."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.now_ms = 1_000_000
        self.ledger = Ledger()
        self.steps: list[str] = []
        self.cut_at = 0
        """The number of the step that does not happen any more; 0: all happen."""
        self.fail_at = 0
        """The number of the step that fails."""
        self.failure: type[DiskFailed | NoSpace] = DiskFailed
        self.beside: Callable[[str], object] = lambda what: None
        """Called at every step and before every read."""
        self.bench = Bench(FakeDisk(), MemoryIndexHome(), settings, lambda: self.now_ms)
        self.hook(self.bench.disk, self.bench.home)

    def begin(self, *, cut_at: int = 0, fail_at: int = 0) -> None:
        """Count steps from here."""
        self.steps.clear()
        self.cut_at, self.fail_at = cut_at, fail_at

    def hook(self, disk: FakeDisk, home: MemoryIndexHome) -> None:
        self.disk, self.home = disk, home
        disk.step = home.step = self._on_step
        disk.glance = home.glance = lambda what: self.beside(what)

    def start_on(self, disk: FakeDisk, home: MemoryIndexHome) -> None:
        """A start, whose steps count too."""
        self.hook(disk, home)
        self.bench = Bench(disk, home, self.bench.settings, lambda: self.now_ms)

    def _on_step(self, what: str) -> None:
        self.steps.append(what)
        if self.cut_at and len(self.steps) >= self.cut_at:
            raise PowerCut(what)
        if self.fail_at == len(self.steps):
            if what.startswith("sync "):
                # It is the call that must fail, with what that does to the bytes.
                disk = self.disk
                disk.fail_syncs, disk.fail_directory_syncs = (0, 1) if what == "sync directory" else (1, 0)
            else:
                raise self.failure(f"injected: {what}")
        self.beside(what)

    # --- what scenes are made of --------------------------------------------------------------------

    def store(self, *fids: int, length: int = 100) -> None:
        self.ledger.store(self.bench, *fids, length=length)

    def store_one_by_one(self, first: int, last: int) -> None:
        for fid in range(first, last + 1):
            self.store(fid)

    def delete(self, *fids: int) -> None:
        self.ledger.delete(self.bench, *fids)

    def wait(self, seconds: int = KEEP_S) -> None:
        self.now_ms += seconds * 1000

    def rot(self, fid: int, place: int = 80) -> None:
        """Flip a bit of a live record: of its payload, or with a ``place`` below 72 of its header."""
        entry = self.bench.engine._index.get(fid)
        assert entry is not None
        self.bench.disk.flip(file_name(entry.file), entry.offset + place)
        self.ledger.damaged.add(fid)

    def repair(self, fid: int) -> None:
        assert self.bench.content(fid) in ("BAD_CHECKSUM", "DISK_FAILED")
        if self.ledger.store(self.bench, fid) == [""]:
            self.ledger.damaged.discard(fid)

    def compact(self, between: Callable[[int], object] = lambda number: None) -> int:
        """Record by record, job by job until it is idle; ``between`` is called after each."""
        jobs = 0
        job: object = CompactJob(1, all_garbage=True)
        while True:
            done = self.bench.engine.run(job)
            assert isinstance(done, CompactDone)
            if done.idle:
                return jobs
            jobs += 1
            between(jobs)
            assert jobs < 1000, "compaction never ends"
            job = done.follow or CompactJob(1, all_garbage=True)

    def scrub(self) -> None:
        """A whole pass; lost tombstones are written anew."""
        job = ScrubJob(2**20, anew=True)
        while True:
            done = self.bench.engine.run(job)
            assert isinstance(done, ScrubDone)
            if done.lost_tombstones:
                self.delete(*done.lost_tombstones)
            if done.follow is not None:
                self.bench.engine.run(done.follow)
            if not done.scrub.running or done.idle:
                return
            job = ScrubJob(2**20)


class Play(msgspec.Struct, frozen=True):
    """``prepare`` happens undisturbed; ``act`` takes at least ``steps_min`` steps, of the named ``kinds``."""

    name: str
    prepare: Callable[[Scene], object]
    act: Callable[[Scene], object]
    steps_min: int
    kinds: tuple[str, ...]
    settings: Settings = SETTINGS
    ends: bool = False
    """The engine is not used any more afterwards."""


def some_stored(scene: Scene) -> None:
    scene.store_one_by_one(1, 3)


def three_files_with_garbage(scene: Scene) -> None:
    """Tombstones, live and dead fragments, and one that was repaired, over three files."""
    scene.store_one_by_one(1, 7)
    scene.delete(2, 4)
    scene.rot(1)
    scene.repair(1)
    scene.store_one_by_one(8, 10)
    scene.delete(9, 999)


def old_tombstones(scene: Scene) -> None:
    """Tombstones that nothing needs once their files are gone."""
    three_files_with_garbage(scene)
    scene.wait()


def tombstones_apart_from_what_they_delete(scene: Scene) -> None:
    """Both files are compacted at once, that of the tombstones first, as it is the worst."""
    scene.store_one_by_one(1, 9)
    scene.delete(1)
    scene.delete(6, 7, 8, 9)
    scene.wait()


def first_store(scene: Scene) -> None:
    scene.store(1)


def store_and_delete_in_one_batch(scene: Scene) -> None:
    scene.ledger.write(scene.bench, item(4), delete(2), item(5), delete(5))


def repair(scene: Scene) -> None:
    scene.rot(2)
    scene.repair(2)


def compact_with_company(scene: Scene) -> None:
    """After every job of the compaction something else: stores, deletes and a repair."""
    victims = [1, 3, 8, 10, 6]

    def between(number: int) -> None:
        if number in (2, 7, 9):
            scene.delete(victims.pop(0))
        elif number in (4, 8):
            scene.store(100 + number)
        elif number == 5 and 5 in scene.ledger.live:
            scene.rot(5)
            scene.repair(5)
        elif number == 6 and 7 in scene.ledger.live:
            scene.delete(7)

    scene.compact(between)


def compact_damage(scene: Scene) -> None:
    """Damaged payloads are copied, damaged headers are found through the index."""
    scene.rot(3, 80)
    scene.rot(6, 20)
    scene.store(200)
    scene.compact()


def run_out_of_room(scene: Scene) -> None:
    """A write that finds room for a part, and one that finds it whole."""
    disk = scene.bench.disk
    disk.short_write_bytes = RECORD + 30
    try:
        scene.store(20, 21)
    finally:
        disk.short_write_bytes = None
    scene.store(22)


def close(scene: Scene) -> None:
    scene.bench.engine.close()


def close_after_stores(scene: Scene) -> None:
    scene.store(4, 5)
    close(scene)


def start_after_a_cut(scene: Scene) -> None:
    home = scene.bench.home
    scene.start_on(scene.bench.disk.crash(keep_all), home.crash(home.unsynced // 2))
    scene.store(30)


def start_without_an_index(scene: Scene) -> None:
    scene.start_on(scene.bench.disk.crash(keep_all), MemoryIndexHome())
    scene.store(30)


def compaction_until(kind: str, occurrence: int = 1) -> Callable[[Scene], None]:
    """Compact until the power goes before such a step, and keep what lies there."""

    def prepare(scene: Scene) -> None:
        old_tombstones(scene)
        scene.beside = cut_before(kind, occurrence)
        with suppress(PowerCut):
            scene.compact()
        scene.beside = lambda what: None

    return prepare


def cut_before(kind: str, occurrence: int) -> Callable[[str], None]:
    """A hook that cuts the power at the n-th such step, and stays without power."""
    seen = 0

    def look(what: str) -> None:
        nonlocal seen
        seen += kind in what
        if seen >= occurrence:
            raise PowerCut(what)

    return look


def scrub_old_tombstones(scene: Scene) -> None:
    scene.scrub()


def condemn(scene: Scene) -> None:
    scene.bench.home.lost = True
    assert scene.bench.content(1) == "DISK_FAILED"


CHECKPOINTS = msgspec.structs.replace(SETTINGS, checkpoint_bytes=2 * RECORD)
ROOMY = msgspec.structs.replace(SETTINGS, data_file_bytes_max=SUPERBLOCK_BYTES + 50 * RECORD)
COMPACTION = ("create", "rename", "sync directory", "index put", "index checkpoint", "remove")

PLAYS = [
    Play("the first store", lambda scene: None, first_store, 7, ("create", "sync directory", "index put")),
    Play("a store", some_stored, lambda scene: scene.store(4), 3, ("write", "sync", "index put")),
    Play("a batch of stores", some_stored, lambda scene: scene.store(4, 5), 3, ("write", "sync")),
    Play(
        "a batch over three files",
        some_stored,
        lambda scene: scene.store(*range(4, 15)),
        18,
        ("truncate", "create", "write", "sync", "sync directory", "index put"),
    ),
    Play("a delete", some_stored, lambda scene: scene.delete(1), 3, ("write", "sync", "index put")),
    Play("stores and deletes in one batch", some_stored, store_and_delete_in_one_batch, 6, ("write", "sync")),
    Play("a repair", some_stored, repair, 3, ("write", "sync", "index put")),
    Play(
        "a checkpoint",
        some_stored,
        lambda scene: scene.store_one_by_one(4, 9),
        20,
        ("index checkpoint",),
        CHECKPOINTS,
    ),
    Play("a clean end", some_stored, close_after_stores, 4, ("index checkpoint",), ends=True),
    Play("a write without room", some_stored, run_out_of_room, 6, ("write", "truncate", "sync")),
    Play("a compaction", three_files_with_garbage, lambda scene: scene.compact(), 30, COMPACTION),
    Play("a compaction that drops tombstones", old_tombstones, lambda scene: scene.compact(), 30, COMPACTION),
    Play(
        "a compaction of tombstones with their fragments",
        tombstones_apart_from_what_they_delete,
        lambda scene: scene.compact(),
        30,
        COMPACTION,
    ),
    Play("a compaction with company", three_files_with_garbage, compact_with_company, 45, COMPACTION),
    Play("a compaction of one large file", old_tombstones, compact_with_company, 30, COMPACTION, ROOMY),
    Play("a compaction of damaged files", three_files_with_garbage, compact_damage, 36, COMPACTION),
    Play("a scrub", old_tombstones, scrub_old_tombstones, 256, ("index note", "index put")),
    Play("an index found damaged", some_stored, condemn, 1, ("index condemn",), ends=True),
    Play(
        "a start",
        three_files_with_garbage,
        start_after_a_cut,
        9,
        ("truncate", "write", "index checkpoint"),
        ends=True,
    ),
    Play(
        "a rebuild",
        three_files_with_garbage,
        start_without_an_index,
        9,
        ("index create", "index put"),
        ends=True,
    ),
    Play(
        "a start amid copying", compaction_until("data.new", 8), start_after_a_cut, 9, ("remove",), ends=True
    ),
    Play(
        "a start amid switching",
        compaction_until("index put", 2),
        start_after_a_cut,
        9,
        ("index put",),
        ends=True,
    ),
    Play(
        "a rebuild amid switching",
        compaction_until("index put", 2),
        start_without_an_index,
        9,
        ("write",),
        ends=True,
    ),
    Play("a start amid removing", compaction_until("remove", 2), start_after_a_cut, 9, ("write",), ends=True),
    Play(
        "a rebuild amid removing",
        compaction_until("remove", 2),
        start_without_an_index,
        9,
        ("write",),
        ends=True,
    ),
]


def drive(play: Play, *, cut_at: int = 0, fail_at: int = 0) -> Scene:
    """Prepare, and act until the end or the power cut."""
    scene = Scene(play.settings)
    play.prepare(scene)
    scene.begin(cut_at=cut_at, fail_at=fail_at)
    with suppress(PowerCut):
        play.act(scene)
    scene.cut_at = scene.fail_at = 0
    return scene


def some_randomness(*seeds: int) -> random.Random:
    """The same for the same numbers."""
    return random.Random(":".join(map(str, seeds)))
