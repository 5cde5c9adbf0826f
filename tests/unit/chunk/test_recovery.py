"""The engine after a crash: what was acknowledged is there, what was not is there whole or not at all."""

from __future__ import annotations

import random

import pytest

from fabric.chunk.data_file import ForeignFile, file_name
from fabric.chunk.engine import Engine
from fabric.chunk.record import (
    SUPERBLOCK_BYTES,
    RecordHeader,
    Superblock,
    encode_header,
    encode_superblock,
    record_bytes,
)
from fabric.chunk.scan import Gap, scan
from fabric.settings import Settings
from sim.crashes import keep_some
from sim.disk import Change, FakeDisk
from sim.index import MemoryIndexHome
from tests.unit.chunk.engine_bench import SMALL, UUID, Bench, checksum_of, delete, item, payload_of

FILE = file_name(1)
RECORD = record_bytes(100)


def unacknowledged(bench: Bench, *fids: int) -> None:
    """Leave these fragments written and not synced: their sync has failed, so the engine is done for."""
    inode = bench.disk.files[FILE]
    before = len(inode.unsynced)
    write = bench.disk.open(FILE).inode
    bench.disk.fail_syncs = 1
    changes: list[Change] = []
    original = write.change

    def note(change: Change) -> None:
        changes.append(change)
        original(change)

    write.change = note  # type: ignore[method-assign]
    assert set(bench.codes(*map(item, fids))) == {"DISK_FAILED"}
    write.change = original  # type: ignore[method-assign]
    inode.unsynced[before:] = [change for change in changes if change.kind == "write"]
    assert len(inode.unsynced) == before + 1


def test_acknowledged_fragments_survive_the_loss_of_everything_unsynced() -> None:
    bench = Bench()
    bench.store(1, 2)
    bench.store(3)
    bench.write(delete(2))
    after = bench.crashed()
    assert after.live().keys() == {1, 3}
    assert after.codes(item(2)) == ["CONFLICT"]
    assert after.digest() == bench.digest()


def test_a_torn_record_is_cut_at_every_byte_and_later_appends_survive_a_rebuild() -> None:
    for kept_bytes in range(RECORD + 1):
        bench = Bench()
        bench.store(1)
        unacknowledged(bench, 2)

        after = bench.crashed(bench.disk.crash(keep=lambda _, kept=kept_bytes: kept))

        survived = {1, 2} if kept_bytes >= RECORD - 4 else {1}  # the last 4 bytes are padding
        assert after.live().keys() == survived, kept_bytes
        after.store(3)
        for later in (after, after.crashed(), after.without_index()):
            assert later.live().keys() == survived | {3}, kept_bytes
            assert later.content(3) == payload_of(3)
            assert later.engine.status().quarantined == 0


def test_leftovers_behind_a_lost_record_are_not_found_by_a_rebuild() -> None:
    """Of one unsynced batch the first record is lost and the others survive."""
    bench = Bench()
    bench.store(1)
    unacknowledged(bench, 2, 3, 4)
    disk = bench.disk.crash(keep=lambda change: len(change.data))
    inode = disk.files[FILE]
    start = SUPERBLOCK_BYTES + RECORD
    for content in (inode.durable, inode.content):
        content[start : start + RECORD] = bytes(RECORD)

    after = bench.crashed(disk)
    assert after.live().keys() == {1}
    after.store(5)  # exactly where 2 was: 3 and 4 would follow it seamlessly
    assert after.without_index().live().keys() == {1, 5}
    assert after.crashed().without_index().live().keys() == {1, 5}


def test_a_file_cut_short_below_the_watermark_keeps_the_place_of_what_is_gone() -> None:
    for lost_bytes in range(1, RECORD + 1):
        bench = Bench()
        bench.store(1)
        bench.store(2)
        bench.engine.close()
        bench.disk.cut(FILE, SUPERBLOCK_BYTES + 2 * RECORD - lost_bytes)

        after = bench.crashed(bench.disk)
        after.store(3)

        assert after.content(1) == payload_of(1)
        assert after.content(2) == (payload_of(2) if lost_bytes <= 4 else "BAD_CHECKSUM")
        rebuilt = after.without_index()
        assert rebuilt.content(3) == payload_of(3), lost_bytes
        assert rebuilt.content(1) == payload_of(1)


@pytest.mark.parametrize("closed", [True, False])
def test_rot_in_the_middle_is_skipped_and_never_cut(closed: bool) -> None:
    for place in range(RECORD - 4):
        bench = Bench()
        for fid in (1, 2, 3):
            bench.store(fid)
        if closed:
            bench.engine.close()
        bench.disk.flip(FILE, SUPERBLOCK_BYTES + RECORD + place, bit=place % 8)

        after = bench.crashed(bench.disk if closed else None)
        rebuilt = after.without_index()

        for engine in (after, rebuilt):
            assert engine.content(1) == payload_of(1), place
            assert engine.content(3) == payload_of(3), place
            assert engine.content(2) in ("BAD_CHECKSUM", "NO_FRAGMENT"), place
        rebuilt.store(2)
        rebuilt.store(4)
        assert rebuilt.without_index().live().keys() == {1, 2, 3, 4}
        assert rebuilt.without_index().content(2) == payload_of(2)


def test_a_damaged_payload_found_by_a_rebuild_is_quarantined() -> None:
    bench = Bench()
    bench.store(1)
    bench.store(2)
    bench.disk.flip(FILE, SUPERBLOCK_BYTES + 80)
    rebuilt = bench.without_index()
    assert rebuilt.live() == bench.live()
    assert rebuilt.engine.status().quarantined == 1
    rebuilt.store(1)
    assert rebuilt.content(1) == payload_of(1)


def test_an_index_entry_proves_that_the_last_record_is_rot_and_not_torn() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.flip(FILE, SUPERBLOCK_BYTES + 80)
    after = bench.killed()
    assert after.live().keys() == {1}
    assert after.content(1) == "BAD_CHECKSUM"
    after.disk.flip(FILE, SUPERBLOCK_BYTES + 80)
    assert after.content(1) == payload_of(1)  # nothing was cut: only the flipped bit was wrong
    after.disk.flip(FILE, SUPERBLOCK_BYTES + 80)
    after.store(2)
    after.store(1)
    assert (after.content(1), after.content(2)) == (payload_of(1), payload_of(2))


def test_without_any_proof_the_last_record_is_torn() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.flip(FILE, SUPERBLOCK_BYTES + 80)
    assert bench.crashed().live() == {}


def test_of_two_copies_a_rebuild_takes_the_good_one() -> None:
    for damaged_copy in (0, 1):
        bench = Bench()
        bench.store(1)
        bench.disk.flip(FILE, SUPERBLOCK_BYTES + 80)
        bench.read(1)
        bench.store(1)
        bench.store(2)
        if damaged_copy == 1:
            bench.disk.flip(FILE, SUPERBLOCK_BYTES + 80)
            bench.disk.flip(FILE, SUPERBLOCK_BYTES + RECORD + 80)
        rebuilt = bench.without_index()
        assert rebuilt.content(1) == payload_of(1)
        assert rebuilt.engine.status().quarantined == 0


def test_a_tombstone_holds_against_any_record_of_its_fid() -> None:
    """Data files may be in any order one day (a record moved behind a tombstone): dead is dead."""
    bench = Bench()
    bench.store(1)
    bench.write(delete(1))
    data_file = bench.engine._files.active
    assert data_file is not None
    payload = payload_of(1)
    header = RecordHeader(1, data_file.end, checksum_of(payload), 1, 0, data_file.end, 1, len(payload))
    data_file.append([encode_header(header, data_file.salt), payload], RECORD)
    assert bench.without_index().live() == {}


@pytest.mark.parametrize("block_bytes", [80, 256, 1000, 4096])
def test_a_scan_finds_the_same_whatever_it_reads_at_once(
    block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    for fid in range(1, 41):
        bench.store(fid)
    for fid in range(2, 40, 3):
        bench.disk.flip(FILE, SUPERBLOCK_BYTES + (fid - 1) * RECORD + 9)
    data_file = bench.engine._files.active
    assert data_file is not None
    at_once = list(scan(data_file, SUPERBLOCK_BYTES, 10**6))
    monkeypatch.setattr("fabric.chunk.scan.BLOCK_BYTES", block_bytes)

    assert list(scan(data_file, SUPERBLOCK_BYTES, 10**6)) == at_once
    assert sum(isinstance(found, Gap) for found in at_once) == 13
    assert at_once[-1].start == SUPERBLOCK_BYTES + 39 * RECORD


def test_the_rebuilt_index_equals_the_one_that_was_lost() -> None:
    rng = random.Random(3)
    bench = Bench()
    for _ in range(60):
        fids = [rng.randint(1, 200) for _ in range(rng.randint(1, 5))]
        bench.write(*(delete(fid) if rng.random() < 0.2 else item(fid, length=3000) for fid in fids))
    assert len(bench.disk.names()) > 3
    rebuilt = bench.without_index()
    assert rebuilt.live() == bench.live()
    assert rebuilt.digest() == bench.digest()
    assert all(rebuilt.content(fid, 3000) == payload_of(fid, 3000) for fid in bench.live())
    assert rebuilt.engine.status().fragments == bench.engine.status().fragments
    assert rebuilt.engine.status().live_bytes == bench.engine.status().live_bytes


def test_a_start_after_a_clean_end_reads_no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.store(1, 2)
    bench.engine.close()
    monkeypatch.setattr("fabric.chunk.recovery._Recovery._adopt", None)
    after = bench.crashed(bench.disk)
    assert after.live() == bench.live()


def test_bytes_that_only_the_cache_holds_are_written_again_before_they_count() -> None:
    """After a failed sync, the process restarts on the same running system and believes what it reads."""
    bench = Bench()
    bench.store(1)
    bench.disk.fail_syncs = 1
    assert bench.codes(item(2)) == ["DISK_FAILED"]

    restarted = bench.crashed(bench.disk)  # no power cut: the cache still shows fragment 2
    acknowledged = restarted.codes(item(2))

    assert acknowledged == [""]
    assert restarted.crashed().content(2) == payload_of(2)


@pytest.mark.parametrize("kept_bytes", [0, 1, 30, 2048, 2100, SUPERBLOCK_BYTES])
def test_a_file_whose_creation_was_cut_short_is_removed_or_made_durable(kept_bytes: int) -> None:
    bench = Bench()
    bench.store(1)
    disk = bench.disk.crash()
    torn = disk.create(file_name(2))
    torn.pwritev([encode_superblock(Superblock(UUID, 2, 99, 0))[:kept_bytes]], 0)
    after = bench.crashed(disk)
    after.store(2)
    assert after.crashed().live().keys() == {1, 2}


def test_one_copy_of_the_superblock_is_enough() -> None:
    for place in (0, 20, 50, 2048, 2048 + 50):
        bench = Bench()
        bench.store(1)
        bench.disk.flip(FILE, place)
        assert bench.crashed().content(1) == payload_of(1)


def test_a_file_without_a_superblock_is_put_aside_and_its_fragments_are_missing() -> None:
    bench = Bench()
    bench.store(*range(1, 8), length=20_000)
    bench.engine.close()
    bench.disk.flip(FILE, 0)
    bench.disk.flip(FILE, 2048)
    after = bench.crashed(bench.disk)
    assert after.live().keys() == {4, 5, 6, 7}
    assert FILE + ".damaged" in after.disk.names()
    after.store(1, length=20_000)
    assert after.crashed().content(1, 20_000) == payload_of(1, 20_000)


def test_a_directory_of_another_server_is_refused() -> None:
    bench = Bench()
    bench.store(1)
    with pytest.raises(ForeignFile, match="belongs to server"):
        Engine(
            bench.disk, bench.home, uuid=b"x" * 16, settings=SMALL, rng=random.Random(1), wall_ms=lambda: 0
        )


def test_a_payload_that_looks_like_a_record_is_never_taken_for_one() -> None:
    """A client stores the image of a data file; the record around it rots."""
    victim = Bench()
    victim.store(1, 2)
    image = bytes(victim.disk.files[FILE].content[: SUPERBLOCK_BYTES + 2 * RECORD])

    bench = Bench()
    bench.write(item(50, image))
    bench.store(51)
    bench.disk.flip(FILE, SUPERBLOCK_BYTES + 9)
    assert bench.without_index().live().keys() == {51}


def test_deleted_fragments_stay_dead_in_a_rebuild_even_behind_a_repair_copy() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.flip(FILE, SUPERBLOCK_BYTES + 80)
    bench.read(1)
    bench.store(1)
    bench.write(delete(1))
    rebuilt = bench.without_index()
    assert rebuilt.live() == {}
    assert rebuilt.codes(item(1)) == ["CONFLICT"]


def test_a_rebuild_that_is_interrupted_begins_again() -> None:
    bench = Bench()
    bench.store(1, 2, 3)
    home = MemoryIndexHome()
    interrupted = home.create()
    interrupted.close()
    after = Bench(bench.disk, home)
    assert after.live().keys() == {1, 2, 3}
    assert home.created == 2


def test_any_crash_keeps_every_acknowledged_write_and_no_half_of_any_other() -> None:
    for seed in range(60):
        _crash_again_and_again(seed)


def _crash_again_and_again(seed: int) -> None:
    """Random batches, a sync that fails at a random moment, a power cut that keeps anything; six lives."""
    rng = random.Random(seed)
    bench = Bench(
        FakeDisk(), settings=Settings(data_file_bytes_max=20_000, reserve_bytes=0, checkpoint_bytes=6_000)
    )
    stored: dict[int, int] = {}
    deleted: set[int] = set()
    tried: dict[int, int] = {}
    maybe_deleted: set[int] = set()
    next_fid = 1
    for _life in range(6):
        for _ in range(rng.randint(1, 12)):
            batch = []
            for _ in range(rng.randint(1, 4)):
                if stored and rng.random() < 0.25:
                    batch.append(delete(rng.choice(list(stored))))
                else:
                    batch.append(item(next_fid, length=rng.choice([0, 7, 100, 3000])))
                    next_fid += 1
            if rng.random() < 0.1:
                _break_something(bench, rng)
            for work, outcome in zip(batch, bench.write(*batch), strict=True):
                length = len(work.payload) if hasattr(work, "payload") else -1
                if length < 0:
                    (maybe_deleted if outcome.error else deleted).add(work.fid)
                elif outcome.error:
                    tried[work.fid] = length
                else:
                    stored[work.fid] = length
        power_cut = rng.random() < 0.7
        disk = bench.disk.crash(keep_some(rng)) if power_cut else bench.disk
        disk.fail_syncs, disk.short_write_bytes = 0, None
        home = MemoryIndexHome() if rng.random() < 0.2 else bench.home
        bench = Bench(disk, home, bench.settings)
        live = bench.live()
        for fid, length in stored.items():
            if fid in deleted:
                assert fid not in live, (seed, fid)
            elif fid not in maybe_deleted or fid in live:
                assert bench.content(fid, length) == payload_of(fid, length), (seed, fid)
            else:
                deleted.add(fid)
        for fid in live.keys() - stored.keys():
            assert bench.content(fid, tried[fid]) == payload_of(fid, tried[fid]), (seed, fid)
            stored[fid] = tried[fid]
        maybe_deleted.clear()
        assert bench.engine.status().quarantined == 0, seed
        assert bench.without_index().digest() == bench.digest(), seed


def _break_something(bench: Bench, rng: random.Random) -> None:
    if rng.random() < 0.5:
        bench.disk.fail_syncs = 1
    else:
        bench.disk.short_write_bytes = rng.randint(0, 2000)
