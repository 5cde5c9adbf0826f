"""A chunk server is killed, or loses its power, around a write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.record import SUPERBLOCK_BYTES, record_bytes
from sim.crashes import keep_all, keep_bytes_only, keep_names_only
from sim.disk import Change, NameChange, PowerCut, keep_nothing
from sim.index import MemoryIndexHome
from tests.unit.chunk.crash_scenes import Scene
from tests.unit.chunk.engine_bench import Bench, payload_of

FILE = file_name(1)
RECORD = record_bytes(100)


def killed_at(moment: str) -> Scene:
    """Fragment 1 is acknowledged; the process is killed while it stores fragment 2."""
    scene = Scene()
    scene.store(1)

    def look(what: str) -> None:
        if moment == "in the middle of the write" and what == f"write {FILE}":
            # The system has taken a part of the bytes.
            half = Change("write", SUPERBLOCK_BYTES + RECORD, b"F" * (RECORD // 2))
            scene.disk.files[FILE].change(half)
            raise PowerCut(what)
        if what == last_steps[moment]:
            raise PowerCut(what)

    last_steps = {
        "before the write": f"write {FILE}",
        "in the middle of the write": "",
        "after the write": f"sync {FILE}",
        "after the fdatasync": "index put",
        "after the index put": "",
        "after the acknowledgement": "",
    }
    scene.beside = look
    try:
        if moment == "after the index put":
            # It dies with the answer in its hands.
            scene.bench.store(2)
            scene.ledger.maybe_live[2] = 100
        else:
            scene.store(2)
    except PowerCut:
        assert moment not in ("after the index put", "after the acknowledgement")
    scene.beside = lambda what: None
    return scene


@pytest.mark.parametrize(
    ("moment", "is_there"),
    [
        ("before the write", False),
        ("in the middle of the write", False),
        ("after the write", True),
        ("after the fdatasync", True),
        ("after the index put", True),
        ("after the acknowledgement", True),
    ],
)
@pytest.mark.parametrize("end", ["kill", "power cut", "kill, and the index is lost"])
def test_fault_01_a_chunk_server_is_killed_before_in_the_middle_of_and_after_the_write(
    moment: str, is_there: bool, end: str
) -> None:
    scene = killed_at(moment)
    if end == "power cut":
        after = scene.bench.crashed()
        is_there = is_there and moment != "after the write"
    elif end == "kill":
        after = scene.bench.killed()
    else:
        after = scene.bench.without_index()

    scene.ledger.settle(after)
    assert after.content(1) == payload_of(1)
    assert after.content(2) == (payload_of(2) if is_there else "NO_FRAGMENT")
    # The client tries again: the same answer, one record.
    scene.ledger.store(after, 2)
    scene.ledger.store(after, 3)
    assert after.engine.status().fragments == 3
    scene.ledger.check_rebuild(after)
    rebuilt = after.crashed().without_index()
    assert rebuilt.engine.status().data_bytes == 3 * RECORD


@pytest.mark.parametrize("rolls", [False, True])
def test_fault_02_all_replicas_lose_all_unsynced_data_just_after_the_acknowledgement(rolls: bool) -> None:
    """Not one byte of what was acknowledged was unsynced on any of them."""
    replicas = [Bench() for _ in range(3)]
    length = 20_000 if rolls else 100
    for fid in range(1, 8):
        for bench in replicas:
            bench.store(fid, length=length)
        after = [Bench(bench.disk.crash(keep_nothing), MemoryIndexHome()) for bench in replicas]
        for bench in after:
            assert bench.live().keys() == set(range(1, fid + 1))
            assert all(bench.content(one, length) == payload_of(one, length) for one in range(1, fid + 1))
        assert len({bench.digest() for bench in after}) == 1
    assert len(replicas[0].disk.names()) == (3 if rolls else 1)


def forget_creations(change: Change | NameChange) -> int:
    """Everything survives but new names."""
    return 0 if isinstance(change, NameChange) and change.kind == "create" else change.size


@pytest.mark.parametrize("keep", [keep_nothing, keep_all, keep_bytes_only, keep_names_only, forget_creations])
@pytest.mark.parametrize("first", [True, False])
def test_fault_03_a_power_cut_after_a_data_file_was_created_or_rolled(
    first: bool, keep: Callable[[Change | NameChange], int]
) -> None:
    number = 1 if first else 2
    name = file_name(number)
    moments = [f"create {name}", f"write {name}", f"sync {name}", "sync directory", f"allocate {name}"]
    moments += [f"write {name}", f"sync {name}", "index put"]
    for count in range(len(moments) + 1):
        scene = Scene()
        if not first:
            scene.store(*range(1, 6))
        scene.begin()
        seen: list[str] = []

        def look(what: str, seen: list[str] = seen, limit: int = count) -> None:
            seen.append(what)
            if seen[-1:] == moments[limit : limit + 1] and _created(seen, name) == limit:
                raise PowerCut(what)

        scene.beside = look
        try:
            scene.store(10)
            assert count == len(moments)
        except PowerCut:
            assert count < len(moments)
        scene.beside = lambda what: None

        after = Bench(scene.disk.crash(keep), scene.home.crash(), scene.bench.settings)
        scene.ledger.settle(after)
        scene.ledger.store(after, 11)
        # The name and the bytes are durable now, whatever the cut had left of them.
        again = Bench(after.disk.crash(), after.home.crash(), after.settings)
        scene.ledger.settle(again)
        assert again.content(11) == payload_of(11)
        scene.ledger.check_rebuild(again)


def _created(seen: list[str], name: str) -> int:
    """How many calls came before the last one, from the creation of the file on."""
    return len(seen) - 1 - seen.index(f"create {name}") if f"create {name}" in seen else -1
