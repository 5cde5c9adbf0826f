"""Records that are cut, flipped, swapped or stale."""

from __future__ import annotations

import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.record import RECORD_HEADER_BYTES, SUPERBLOCK_BYTES, record_bytes
from fabric.wire.messages import FragmentData, ReadFragment
from sim.crashes import keep_all
from sim.index import MemoryIndexHome
from tests.unit.chunk.engine_bench import Bench, delete, payload_of
from tests.unit.chunk.ledger import audit
from tests.unit.chunk.role_world import GROUP, World

FILE = file_name(1)
RECORD = record_bytes(100)
PADDING = RECORD - RECORD_HEADER_BYTES - 100


@pytest.mark.parametrize("tail_bytes", [0, 1000], ids=["the file ends there", "zeros follow"])
def test_fault_04_the_last_record_is_truncated_at_every_byte(tail_bytes: int) -> None:
    """Its write was not finished.  Later appends survive a full rebuild of the index."""
    for kept_bytes in range(RECORD + 1):
        bench = Bench()
        bench.store(1)
        home = bench.home.crash(bench.home.unsynced)
        bench.store(2)
        disk = bench.disk.crash(keep_all)
        start = SUPERBLOCK_BYTES + RECORD
        for content in (disk.files[FILE].durable, disk.files[FILE].content):
            del content[start + kept_bytes :]
            content.extend(bytes(tail_bytes))

        after = Bench(disk, home)
        is_whole = kept_bytes >= RECORD - PADDING
        survived = {1, 2} if is_whole else {1}
        assert after.live().keys() == survived, kept_bytes
        after.store(3)
        after.store(4)
        for later in (after, after.crashed(), after.without_index()):
            assert later.live().keys() == survived | {3, 4}, kept_bytes
            assert [later.content(fid) for fid in (1, 3, 4)] == [payload_of(fid) for fid in (1, 3, 4)]
            assert later.engine.status().quarantined == 0
            audit(later)


PLACES = [0, 4, 5, 9, 20, 30, 50, 60, 66, RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + 99]
"""Magic, version, flags, fid, offset, checksum, batch, length, checksum of the header; payload."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("when", ["it runs", "after a start", "after a rebuild"])
def test_fault_05_a_bit_is_flipped_in_header_length_or_payload_in_the_middle_of_a_file(
    place: int, when: str
) -> None:
    """Nothing is cut; later records are readable; it is quarantined, and a good copy takes its place."""
    bench = Bench()
    for fid in range(1, 6):
        bench.store(fid)
    size = bench.engine.status().data_bytes
    bench.disk.flip(FILE, SUPERBLOCK_BYTES + 2 * RECORD + place, bit=place % 8)
    if when == "after a start":
        bench = bench.killed()
    elif when == "after a rebuild":
        bench = bench.without_index()

    assert [bench.content(fid) for fid in (1, 2, 4, 5)] == [payload_of(fid) for fid in (1, 2, 4, 5)]
    lost = when == "after a rebuild" and place < RECORD_HEADER_BYTES
    assert bench.content(3) == ("NO_FRAGMENT" if lost else "BAD_CHECKSUM")
    assert bench.engine.status().quarantined == (0 if lost else 1)
    assert bench.engine.status().data_bytes == size
    bench.store(3)
    for later in (bench, bench.crashed(), bench.without_index()):
        assert [later.content(fid) for fid in range(1, 6)] == [payload_of(fid) for fid in range(1, 6)]
        assert later.engine.status().quarantined == 0
        audit(later)


@pytest.mark.parametrize("place", [9, 80])
def test_fault_05_a_damaged_fragment_is_repaired_from_a_peer(place: int) -> None:
    world = World("a", "b", "c")
    world.assign("RW", 1)
    for name in ("a", "b", "c"):
        for fid in (1, 2, 3):
            assert world.outcome(world.store(fid, name=name)) == "stored"
    bench = world.servers["a"].bench
    bench.disk.flip(FILE, SUPERBLOCK_BYTES + RECORD + place)

    assert world.outcome(world.ask(ReadFragment(1000, GROUP, 2, 0, 100))) == "BAD_CHECKSUM"
    world.advance(1)

    message, payload = world.replies[world.ask(ReadFragment(1000, GROUP, 2, 0, 100))]
    assert isinstance(message, FragmentData)
    assert bytes(payload) == payload_of(2)
    assert bench.engine.status().quarantined == 0
    assert len({server.bench.digest() for server in world.servers.values()}) == 1
    assert bench.without_index().content(2) == payload_of(2)


def test_fault_06_two_records_are_swapped() -> None:
    bench = Bench()
    for fid in (1, 2, 3):
        bench.store(fid)
    first, second, third = (SUPERBLOCK_BYTES + number * RECORD for number in range(3))
    for content in (bench.disk.files[FILE].content, bench.disk.files[FILE].durable):
        content[first:second], content[second:third] = content[second:third], content[first:second]

    assert [bench.content(fid) for fid in (1, 2, 3)] == ["BAD_CHECKSUM", "BAD_CHECKSUM", payload_of(3)]
    rebuilt = bench.without_index()
    assert [rebuilt.content(fid) for fid in (1, 2, 3)] == ["NO_FRAGMENT", "NO_FRAGMENT", payload_of(3)]


@pytest.mark.parametrize("block", ["of the same place, earlier", "of another file", "of zeros"])
def test_fault_06_a_stale_block_is_served(block: str) -> None:
    """A sound record of another time or place is damage, and never another fragment's bytes."""
    bench = Bench()
    bench.store(1)
    other = Bench()
    other.store(9)
    stale = {
        "of the same place, earlier": bytes(bench.disk.files[FILE].content[SUPERBLOCK_BYTES:][:RECORD]),
        "of another file": bytes(other.disk.files[FILE].content[SUPERBLOCK_BYTES:][:RECORD]),
        "of zeros": bytes(RECORD),
    }[block]
    bench.store(2)
    bench.store(3)
    at = SUPERBLOCK_BYTES + RECORD
    for content in (bench.disk.files[FILE].content, bench.disk.files[FILE].durable):
        content[at : at + RECORD] = stale

    assert [bench.content(fid) for fid in (1, 2, 3)] == [payload_of(1), "BAD_CHECKSUM", payload_of(3)]
    rebuilt = Bench(bench.disk, MemoryIndexHome())
    assert rebuilt.live().keys() == {1, 3}


def test_fault_06_a_deleted_fragment_does_not_come_back_with_a_stale_block() -> None:
    """The block of a tombstone is lost, and what stood there before it is zeros: the index still knows."""
    bench = Bench()
    bench.store(1)
    bench.write(delete(1))
    bench.store(2)
    at = SUPERBLOCK_BYTES + RECORD
    for content in (bench.disk.files[FILE].content, bench.disk.files[FILE].durable):
        content[at : at + RECORD_HEADER_BYTES] = bytes(RECORD_HEADER_BYTES)
    lost = [fid for done in bench.scrub() for fid in done.lost_tombstones]
    assert lost == [1]
    bench.write(delete(1))
    assert bench.without_index().live().keys() == {2}
