"""Reading a stopped server's files against its index: what is damage, what is only noted, what is well."""

from __future__ import annotations

import msgspec
import pytest

from fabric.chunk.data_file import ForeignFile
from fabric.chunk.index import Counters, Entry, IndexLost
from fabric.chunk.jobs import CompactDone, CompactJob
from fabric.chunk.record import FORMAT_VERSION, SUPERBLOCK_BYTES, Superblock, encode_superblock
from fabric.chunk.verify import Verified, verify
from sim.crashes import ways_to_crash
from sim.disk import FakeDisk
from sim.index import MemoryIndexHome
from tests.unit.chunk.crash_scenes import (
    PLAYS,
    RECORD,
    SETTINGS,
    Play,
    compact_damage,
    compact_with_company,
    drive,
    repair,
    some_randomness,
)
from tests.unit.chunk.engine_bench import UUID, Bench, delete

FIRST = "00000001.data"
ROTTING = (repair, compact_damage, compact_with_company)
"""These damage records while they act."""
SOUND_PLAYS = [play for play in PLAYS if play.act not in ROTTING]


@pytest.fixture
def bench() -> Bench:
    """Fragments 1 to 4 in the first file, 5 to 7 and a tombstone for 2 in the second; at rest."""
    bench = Bench(settings=SETTINGS)
    for fid in range(1, 8):
        bench.store(fid)
    bench.write(delete(2))
    bench.engine.close()
    return bench


def look_after_crash(disk: FakeDisk, home: MemoryIndexHome) -> Verified | None:
    """None when there is no index that was ever finished."""
    try:
        index = home.open()
    except IndexLost:
        return None
    return verify(disk, index, UUID) if index.watermark() is not None else None


def look(disk: FakeDisk, home: MemoryIndexHome) -> Verified:
    index = home.open()
    try:
        return verify(disk, index, UUID)
    finally:
        index.close()


def damage(bench: Bench) -> list[str]:
    return look(bench.disk, bench.home).damage


def set_entry(bench: Bench, fid: int, entry: Entry | None) -> None:
    """As damage that the index does not notice would."""
    index = bench.home.open()
    index.put([(fid, entry)], Counters())
    index.close()


def entry_of(bench: Bench, fid: int) -> Entry:
    entry = bench.home.open().get(fid)
    assert entry is not None
    return entry


@pytest.mark.slow
@pytest.mark.parametrize("play", SOUND_PLAYS, ids=lambda play: play.name)
def test_what_a_crash_leaves_at_any_step_is_no_damage(play: Play) -> None:
    count = len(drive(play).steps)
    seen = 0
    for step in range(1, count + 2, max(1, count // 40)):
        scene = drive(play, cut_at=step)
        unsynced = scene.home.unsynced
        for number, way in enumerate(ways_to_crash(some_randomness(step))):
            disk, home = way(scene.disk), scene.home.crash(some_randomness(step, number).randint(0, unsynced))
            home.lost = False
            if (result := look_after_crash(disk, home)) is not None:
                assert result.damage == [], f"before step {step} of {count}"
                seen += 1
            assert verify(disk, None, UUID).damage == [], f"without index, before step {step} of {count}"
            Bench(disk, home, scene.bench.settings, scene.bench.wall_ms).engine.close()
            assert look(disk, home).damage == [], f"after a start after step {step} of {count}"
    assert seen or play.name in ("a start without an index", "an index found damaged")


def test_a_clean_end_leaves_nothing_to_say(bench: Bench) -> None:
    result = look(bench.disk, bench.home)
    assert (result.damage, result.notes) == ([], [])
    assert (result.files, result.records, result.fragments, result.tombstones) == (2, 8, 6, 1)
    assert result.live_bytes == 600


@pytest.mark.parametrize("place", [3, 20, 60, 2047, 2048, 2100, 4095])
def test_one_rotten_copy_of_a_superblock_is_damage(bench: Bench, place: int) -> None:
    bench.disk.flip(FIRST, place)
    assert damage(bench) == [f"{FIRST}: one of the two copies of its superblock is damaged"]


def test_a_file_without_a_superblock_takes_its_fragments_with_it(bench: Bench) -> None:
    bench.disk.flip(FIRST, 3)
    bench.disk.flip(FIRST, 2051)
    in_first = sorted(fid for fid in range(1, 8) if fid != 2 and entry_of(bench, fid).file == 1)
    found = damage(bench)
    assert found[0] == f"{FIRST} has no sound superblock"
    assert sorted(line.split(":")[0] for line in found[1:]) == [f"fragment {fid}" for fid in in_first]


@pytest.mark.parametrize(
    ("superblock", "text"),
    [
        (Superblock(bytes(16), 1, 5, 0), "belongs to server 0000"),
        (Superblock(UUID, 1, 5, 0, version=FORMAT_VERSION + 1), "has format 2, and this program reads 1"),
        (Superblock(UUID, 1, 5, 0, kind=9), "is of kind 9, which this program does not know"),
    ],
)
def test_what_is_not_ours_to_judge_is_refused(bench: Bench, superblock: Superblock, text: str) -> None:
    bench.disk.files[FIRST].content[:SUPERBLOCK_BYTES] = encode_superblock(superblock)
    with pytest.raises(ForeignFile, match=text):
        look(bench.disk, bench.home)


def test_a_lost_row_is_missed_three_times_over(bench: Bench) -> None:
    file = entry_of(bench, 6).file
    set_entry(bench, 6, None)
    left = [fid for fid in range(1, 8) if fid != 6 and entry_of(bench, fid).file == file]
    found = "\n".join(damage(bench))
    assert "fragment 6: its record at" in found
    assert "5 live fragments with 500 bytes; counted are 6 with 600" in found
    assert f"{file:08d}.data: {len(left)} entries with" in found


def test_a_lost_tombstone_row_is_missed_by_the_counters_of_its_file(bench: Bench) -> None:
    lost = entry_of(bench, 2)
    assert lost.is_tombstone
    set_entry(bench, 2, None)
    (text,) = [line for line in damage(bench) if "fragment" not in line]
    assert text.startswith(f"{lost.file:08d}.data: ")


@pytest.mark.parametrize("change", [{"offset": SUPERBLOCK_BYTES + 8}, {"file": 77}, {"flags": 1}])
def test_a_row_that_points_elsewhere_is_found(bench: Bench, change: dict[str, int]) -> None:
    set_entry(bench, 3, msgspec.structs.replace(entry_of(bench, 3), **change))
    assert any("fragment 3: the index points at" in line for line in damage(bench))


def test_a_flipped_header_is_damage_of_its_fragment_and_a_note_of_its_place(bench: Bench) -> None:
    where = entry_of(bench, 4)
    bench.disk.flip(f"{where.file:08d}.data", where.offset + 20)
    result = look(bench.disk, bench.home)
    assert result.damage == [
        f"fragment 4: the index points at {where.offset} of {FIRST}, where its record is not"
    ]
    assert result.notes == [
        f"{FIRST}: no sound record from {where.offset} to {where.offset + RECORD}",
    ]


def test_damage_that_was_repaired_is_only_noted(bench: Bench) -> None:
    again = Bench(bench.disk, bench.home, SETTINGS)
    where = entry_of(bench, 4)
    bench.disk.flip(FIRST, where.offset + 20)
    assert again.content(4) == "BAD_CHECKSUM"
    again.store(4)
    again.engine.close()
    result = look(bench.disk, bench.home)
    assert result.damage == []
    assert [FIRST in note for note in result.notes] == [True]


def test_behind_a_place_that_cannot_be_read_every_record_is_still_judged(bench: Bench) -> None:
    first, last = entry_of(bench, 1), entry_of(bench, 4)
    bench.disk.make_unreadable(FIRST, first.offset, first.offset + 8)
    bench.disk.flip(FIRST, last.offset + 80)
    found = damage(bench)
    assert len(found) == 3
    assert {line.split(":")[0] for line in found[1:]} == {"fragment 1", "fragment 4"}


def test_what_compaction_was_about_to_remove_is_no_damage() -> None:
    now = [1_000_000]
    bench = Bench(settings=SETTINGS, wall_ms=lambda: now[0])
    bench.store(1, 2, 3, 4)
    bench.write(delete(1))
    bench.store(5, 6, 7, 8, 9)
    now[0] += 1000 * int(SETTINGS.tombstone_keep_s)
    job: object = CompactJob(2**20, all_garbage=True)
    while True:
        done = bench.engine.run(job)
        assert isinstance(done, CompactDone) and not done.idle
        if done.follow is not None and done.follow.step == "remove":
            break
        job = done.follow or CompactJob(2**20, all_garbage=True)
    bench.engine.close()
    assert bench.home.open().get(1) is None
    result = look(bench.disk, bench.home)
    assert result.damage == []
    assert f"{FIRST}: compaction had moved all that was in it; a start removes it" in result.notes


def test_without_an_index_the_files_alone_are_read(bench: Bench) -> None:
    result = verify(bench.disk, None, UUID)
    assert (result.damage, result.records, result.fragments) == ([], 8, 0)
    bench.disk.flip(FIRST, SUPERBLOCK_BYTES + 80)
    assert len(verify(bench.disk, None, UUID).damage) == 1


def test_all_bytes_are_told_of_once(bench: Bench) -> None:
    told: list[int] = []
    verify(bench.disk, bench.home.open(), UUID, told.append)
    sizes = [len(bench.disk.files[name].content) for name in bench.disk.names()]
    assert sum(told) == sum(sizes) - SUPERBLOCK_BYTES * len(sizes)
