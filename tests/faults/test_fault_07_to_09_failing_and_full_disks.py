"""Disks that fail once and then pretend, that are full, and the zeros that are allocated ahead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fabric.chunk.data_file import ALLOCATE_BYTES, file_name
from fabric.chunk.record import SUPERBLOCK_BYTES, record_bytes
from fabric.settings import MIB, Settings
from sim.crashes import keep_all
from sim.disk import FakeDisk
from tests.unit.chunk.crash_scenes import SETTINGS, Scene
from tests.unit.chunk.engine_bench import Bench, delete, item, payload_of
from tests.unit.chunk.ledger import audit
from tests.unit.chunk.role_world import World

FILE = file_name(1)
RECORD = record_bytes(100)


def test_fault_07_fsync_returns_eio_once_and_then_ok() -> None:
    """Never an acknowledgement; read-only, and says so; a restart believes only what it has written again."""
    world = World("a")
    world.assign("RW", 1)
    assert world.outcome(world.store(1)) == "stored"
    bench = world.servers["a"].bench
    bench.disk.fail_syncs = 1

    assert world.outcome(world.store(2)) == "DISK_FAILED"
    assert world.outcome(world.store(2)) == "DISK_FAILED"
    assert world.outcome(world.store(3)) == "DISK_FAILED"
    assert bench.disk.fail_syncs == 0
    assert [what for what, _, _ in bench.disk.log].count("sync") == 3, "a failed sync was tried again"
    world.advance(2)
    assert "fdatasync failed" in world.beat().read_only_reason
    assert bench.content(1) == payload_of(1)

    restarted = bench.killed()
    assert restarted.engine.status().read_only_reason == ""
    shown = restarted.content(2)
    after = restarted.crashed()
    assert after.content(1) == payload_of(1)
    assert after.content(2) == shown, "what a start shows must be on the disk"
    restarted.store(4)
    assert restarted.crashed().content(4) == payload_of(4)


def test_fault_07_the_directory_cannot_be_synced() -> None:
    bench = Bench()
    bench.disk.fail_directory_syncs = 1
    assert bench.codes(item(1)) == ["DISK_FAILED"]
    assert bench.codes(item(1)) == ["DISK_FAILED"]
    assert bench.engine.status().read_only_reason
    bench.killed().store(2)


def test_fault_07_the_sync_of_a_compacted_file_fails() -> None:
    """The old files stay, and everything in them."""
    scene = Scene()
    scene.store_one_by_one(1, 12)
    scene.delete(1, 2, 6, 7)
    for failing in (1, 2, 3):  # of its superblock, of its records, of its end
        scene.bench.disk.log.clear()
        scene.bench.disk.step = fail_sync_of_compaction(scene, failing)
        scene.bench.compact()
        assert "fdatasync failed" in scene.bench.engine._compaction.status().problem
        assert scene.bench.engine.status().read_only_reason
        scene.hook(scene.bench.disk, scene.bench.home)
        scene.ledger.check(scene.bench)
        scene.start_on(scene.disk.crash(), scene.home.crash())
        scene.ledger.settle(scene.bench)
    scene.bench.compact()
    scene.ledger.check(scene.bench)
    assert scene.bench.engine.status().garbage_bytes == 0


def fail_sync_of_compaction(scene: Scene, number: int) -> Callable[[str], None]:
    seen = 0

    def look(what: str) -> None:
        nonlocal seen
        if what.startswith("sync ") and what.endswith(".new"):
            seen += 1
            scene.bench.disk.fail_syncs = int(seen == number)

    return look


@pytest.mark.parametrize("kept_bytes", [0, 5, 72, 100, RECORD, RECORD + 1, 2 * RECORD - 1])
def test_fault_08_a_write_finds_room_for_a_part(kept_bytes: int) -> None:
    scene = Scene()
    scene.store(1)
    scene.disk.short_write_bytes = kept_bytes
    assert scene.ledger.store(scene.bench, 2, 3) == ["NO_SPACE", "NO_SPACE"]
    scene.disk.short_write_bytes = None

    assert scene.bench.content(1) == payload_of(1)
    assert scene.ledger.delete(scene.bench, 1) == [""]
    assert scene.ledger.store(scene.bench, 4) == [""]
    scene.ledger.check_rebuild(scene.bench)
    scene.ledger.settle(scene.bench.crashed())


def test_fault_08_the_disk_is_full() -> None:
    """Reads and deletes go on; read-only before the reserve is gone; writable again when there is room."""
    reserve = 20 * MIB
    settings = Settings(data_file_bytes_max=MIB, reserve_bytes=reserve)
    bench = Bench(FakeDisk(28 * MIB), settings=settings)
    stored = 0
    while bench.codes(item(stored + 1, length=100_000)) == [""]:
        stored += 1
    assert stored > 50
    assert bench.disk.free_bytes() > reserve - 2 * MIB, "it went into the reserve"
    assert "nearly full" in bench.engine.status().read_only_reason
    assert bench.engine.status().free_bytes == 0

    assert bench.content(stored, 100_000) == payload_of(stored, 100_000)
    assert bench.codes(*map(delete, range(1, stored))) == [""] * (stored - 1)
    assert bench.codes(item(999)) == ["NO_SPACE"]
    bench.compact()
    assert bench.engine.status().read_only_reason == ""
    assert bench.codes(item(999)) == [""]
    assert bench.content(stored, 100_000) == payload_of(stored, 100_000)
    audit(bench)


def test_fault_08_the_index_finds_no_room() -> None:
    scene = Scene()
    scene.store(1)
    scene.home.full = True
    assert scene.ledger.store(scene.bench, 2) == ["NO_SPACE"]
    assert scene.bench.engine.status().read_only_reason
    assert scene.bench.content(1) == payload_of(1)
    scene.home.full = False
    scene.start_on(scene.disk, scene.home.crash(scene.home.unsynced))
    scene.ledger.settle(scene.bench)
    assert scene.ledger.store(scene.bench, 3) == [""]


@pytest.mark.parametrize("room_bytes", [0, 100, SUPERBLOCK_BYTES, SUPERBLOCK_BYTES + 2 * RECORD])
def test_fault_08_compaction_finds_no_room(room_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up, leaves everything as it was, and succeeds when there is room."""
    monkeypatch.setattr("fabric.chunk.compaction.ROOM_BYTES", -MIB)  # it must find out by itself
    scene = Scene()
    scene.store_one_by_one(1, 14)
    scene.delete(1, 2, 6, 7)
    before = sorted(scene.disk.files)
    scene.disk.capacity -= scene.disk.free_bytes() - room_bytes
    scene.bench.compact()
    assert "full" in scene.bench.engine._compaction.status().problem
    assert not [name for name in scene.disk.names() if name.endswith(".new")]
    assert set(before) <= set(scene.disk.files)
    scene.ledger.check(scene.bench)
    assert scene.bench.content(3) == payload_of(3)
    scene.disk.capacity += MIB
    assert scene.ledger.store(scene.bench, 50) == [""]
    scene.bench.compact()
    assert scene.bench.engine.status().garbage_bytes == 0
    scene.ledger.check_rebuild(scene.bench)


@pytest.mark.parametrize("end", ["kill", "power cut", "clean end", "index lost"])
def test_fault_09_the_preallocated_zero_tail_is_a_clean_end(end: str) -> None:
    settings = Settings(reserve_bytes=0, data_file_bytes_max=2 * ALLOCATE_BYTES)
    bench = Bench(settings=settings)
    bench.store(1)
    bench.store(2)
    assert bench.disk.files[FILE].content[SUPERBLOCK_BYTES + 2 * RECORD :].count(0) > ALLOCATE_BYTES - MIB
    if end == "kill":
        after = bench.killed()
    elif end == "power cut":
        after = bench.crashed(bench.disk.crash(keep_all))
    elif end == "clean end":
        bench.engine.close()
        after = bench.crashed(bench.disk.crash())
    else:
        after = bench.without_index()
    assert after.engine.status().data_bytes == 2 * RECORD
    assert not [note for note in after.engine.notes if "damage" in note]
    assert after.engine.status().quarantined == 0
    after.store(3)
    assert after.crashed().live().keys() == {1, 2, 3}


def test_fault_09_zeros_behind_a_sealed_file_are_a_clean_end_too() -> None:
    bench = Bench(settings=SETTINGS)
    bench.store(*range(1, 8))
    for content in (bench.disk.files[FILE].content, bench.disk.files[FILE].durable):
        content.extend(bytes(5000))
    rebuilt = bench.without_index()
    assert rebuilt.live().keys() == set(range(1, 8))
    assert rebuilt.engine.status().quarantined == 0
    rebuilt.compact()
    audit(rebuilt)
