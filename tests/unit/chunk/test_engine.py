"""The engine while the power is on: what it stores, refuses, and says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.jobs import CompareDone, CompareJob, ListDone, ListJob, StoreItem, WriteBatch, WriteDone
from fabric.chunk.record import SUPERBLOCK_BYTES, record_bytes
from fabric.errors import MemoryGone
from fabric.ids import bucket_of
from fabric.node.disk import Buffer
from fabric.node.effects import Unread
from fabric.settings import Settings, settings_from
from fabric.wire.messages import BucketEntry
from sim.disk import FakeDisk, FakeFile
from tests.unit.chunk.engine_bench import (
    EPOCH,
    GROUP,
    SMALL,
    Bench,
    checksum_of,
    delete,
    item,
    payload_of,
)

FILE = file_name(1)


def test_what_was_stored_is_read_back_whole_and_in_parts() -> None:
    bench = Bench()
    bench.store(5, 6)

    whole = bench.read(5)
    part = bench.read(6, 10, 20)

    assert (bytes(whole.payload), whole.checksum) == (payload_of(5), checksum_of(payload_of(5)))
    assert bytes(part.payload) == payload_of(6)[10:30]
    assert part.checksum == checksum_of(payload_of(6)[10:30])


def test_an_empty_fragment_is_a_fragment() -> None:
    bench = Bench()
    bench.store(5, length=0)
    assert bench.content(5, 0) == b""


def test_a_read_of_what_is_not_there_says_so() -> None:
    bench = Bench()
    bench.store(5)
    assert bench.content(6) == "NO_FRAGMENT"
    assert bench.content(5, 101) == "BAD_RANGE"


def test_one_batch_is_one_write_and_one_sync() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.log.clear()

    bench.store(2, 3, 4)

    total = 3 * record_bytes(100)
    assert bench.disk.log == [("write", FILE, total), ("sync", FILE, 0)]


def test_the_first_ack_comes_after_the_new_file_and_its_name_are_durable() -> None:
    bench = Bench()
    bench.disk.log.clear()
    bench.store(1)
    assert bench.disk.log == [
        ("write", FILE, SUPERBLOCK_BYTES),
        ("sync", FILE, 0),
        ("sync directory", "", 0),
        ("write", FILE, record_bytes(100)),
        ("sync", FILE, 0),
    ]


def test_the_same_fragment_again_is_acknowledged_and_written_once() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.log.clear()

    assert bench.codes(item(1), item(1)) == ["", ""]
    assert bench.disk.log == []


def test_twins_in_one_batch_share_a_record() -> None:
    bench = Bench()
    bench.store(9)
    bench.disk.log.clear()

    assert bench.codes(item(1), item(1)) == ["", ""]
    assert bench.disk.log[0] == ("write", FILE, record_bytes(100))
    assert bench.engine.status().fragments == 2


def test_twins_in_one_batch_fail_together() -> None:
    bench = Bench()
    bench.store(9)
    bench.disk.fail_syncs = 1
    assert bench.codes(item(1), item(1)) == ["DISK_FAILED", "DISK_FAILED"]


def test_other_bytes_under_the_same_fid_are_a_conflict() -> None:
    bench = Bench()
    bench.store(1)
    assert bench.codes(item(1, b"other"), item(2), item(2, b"other")) == ["CONFLICT", "", "CONFLICT"]
    assert bench.content(1) == payload_of(1)
    assert bench.content(2) == payload_of(2)


def test_a_payload_that_does_not_match_its_checksum_is_refused_alone() -> None:
    bench = Bench()
    broken = item(1)
    broken = type(broken)(1, 1, 1, 1, broken.checksum ^ 1, broken.payload)
    assert bench.codes(broken, item(2)) == ["BAD_CHECKSUM", ""]
    assert bench.content(1) == "NO_FRAGMENT"


class Elsewhere(Unread):
    """A payload that is loaded, or cannot be."""

    def __init__(self, promised: bytes, found: bytes | None) -> None:
        self._length, self._found = len(promised), found

    def __len__(self) -> int:
        return self._length

    def load(self) -> Iterator[bytes]:
        if self._found is None:
            yield b"the first piece"
            raise MemoryGone("its owner has died")
        yield from (self._found[:7], self._found[7:])


def test_a_payload_elsewhere_is_loaded_and_verified_and_fails_alone() -> None:
    bench = Bench()
    data = [payload_of(fid) for fid in range(4)]
    found = [data[0], None, data[0], data[3]]  # the memory of the third holds something else by now
    items = [
        StoreItem(fid, fid, GROUP, EPOCH, checksum_of(data[fid]), Elsewhere(data[fid], found[fid]))
        for fid in range(4)
    ]
    assert bench.codes(*items) == ["", "MEMORY_GONE", "BAD_CHECKSUM", ""]
    assert [bench.content(fid) for fid in range(4)] == [data[0], "NO_FRAGMENT", "NO_FRAGMENT", data[3]]
    assert bench.codes(item(1), item(2), *items[1:3]) == ["", "", "MEMORY_GONE", "BAD_CHECKSUM"]


def test_a_deleted_fid_is_dead_for_ever() -> None:
    bench = Bench()
    bench.store(1, 2)
    empty = Bench().digest()

    assert bench.codes(delete(1), delete(2), delete(1)) == ["", "", ""]

    assert bench.content(1) == "NO_FRAGMENT"
    assert bench.codes(item(1)) == ["CONFLICT"]
    assert bench.digest() == empty
    assert (bench.engine.status().fragments, bench.engine.status().live_bytes) == (0, 0)


def test_an_abort_may_come_before_the_store() -> None:
    bench = Bench()
    assert bench.codes(delete(1), item(1)) == ["", "CONFLICT"]
    assert bench.codes(item(1)) == ["CONFLICT"]


def test_store_and_delete_in_one_batch_leave_a_tombstone() -> None:
    bench = Bench()
    assert bench.codes(item(1), delete(1), item(1)) == ["", "", "CONFLICT"]
    assert bench.live() == {}
    assert bench.engine.status().fragments == 0


@pytest.mark.parametrize("again", [lambda bench: bench, Bench.crashed, Bench.without_index])
def test_fids_below_at_and_above_the_highest_are_known_for_what_they_are(
    again: Callable[[Bench], Bench],
) -> None:
    """Those above it are not looked up."""
    bench = Bench()
    bench.store(5, 7)
    assert bench.codes(delete(9)) == [""]
    bench = again(bench)
    assert bench.codes(item(5, b"other"), item(7), item(9), item(10)) == ["CONFLICT", "", "CONFLICT", ""]
    assert bench.codes(item(10, b"other"), item(6), item(11), item(11)) == ["CONFLICT", "", "", ""]
    assert bench.live().keys() == {5, 6, 7, 10, 11}


def test_store_and_delete_in_one_batch_over_two_files_count_right() -> None:
    bench = Bench(
        settings=Settings(data_file_bytes_max=SUPERBLOCK_BYTES + record_bytes(100), reserve_bytes=0)
    )
    assert bench.codes(item(1), delete(1)) == ["", ""]
    assert len(bench.disk.names()) == 2
    assert bench.engine.status().fragments == 0
    assert bench.digest() == Bench().digest()


def test_a_full_file_is_followed_by_a_new_one() -> None:
    bench = Bench()
    bench.store(*range(1, 11), length=20_000)
    assert len(bench.disk.names()) == 4
    assert all(bench.content(fid, 20_000) == payload_of(fid, 20_000) for fid in range(1, 11))


def test_a_fragment_larger_than_a_file_gets_a_file_of_its_own() -> None:
    bench = Bench()
    bench.store(1, 2, length=100_000)
    assert bench.content(2, 100_000) == payload_of(2, 100_000)
    assert len(bench.disk.names()) == 2


def test_after_a_failed_sync_nothing_is_acknowledged_or_tried_again() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.fail_syncs = 1

    assert bench.codes(item(2), delete(1)) == ["DISK_FAILED", "DISK_FAILED"]

    bench.disk.log.clear()
    assert bench.codes(item(3), delete(1)) == ["DISK_FAILED", "DISK_FAILED"]
    assert bench.disk.log == []
    assert "fdatasync failed" in bench.engine.status().read_only_reason
    assert bench.content(1) == payload_of(1)
    assert bench.content(2) == "NO_FRAGMENT"


def test_a_write_error_fails_the_file() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.fail_writes = True
    assert bench.codes(item(2)) == ["DISK_FAILED"]
    bench.disk.fail_writes = False
    assert bench.codes(item(2)) == ["DISK_FAILED"]


@pytest.mark.parametrize("kept_bytes", [0, 10, 80, record_bytes(100), record_bytes(100) + 50])
def test_a_short_write_is_no_space_and_leaves_nothing_behind(kept_bytes: int) -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.short_write_bytes = kept_bytes
    assert bench.codes(item(2), item(3)) == ["NO_SPACE", "NO_SPACE"]

    bench.disk.short_write_bytes = None
    assert bench.codes(delete(4)) == [""]
    bench.store(5)

    assert bench.without_index().live().keys() == {1, 5}
    assert bench.engine.status().read_only_reason == ""


def test_records_of_a_write_that_failed_are_not_found_behind_later_ones() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.short_write_bytes = 2 * record_bytes(100)
    assert bench.codes(item(2), item(3), item(4)) == ["NO_SPACE"] * 3

    bench.disk.short_write_bytes = None
    bench.store(5)  # where 2 lay; 3 would follow it seamlessly

    assert bench.without_index().live().keys() == {1, 5}


def test_a_full_disk_refuses_and_serves() -> None:
    bench = Bench(FakeDisk(capacity=SUPERBLOCK_BYTES + 3 * record_bytes(100)))
    bench.store(1, 2, 3)
    assert bench.codes(item(4)) == ["NO_SPACE"]
    assert bench.content(3) == payload_of(3)
    assert bench.crashed().live().keys() == {1, 2, 3}


def test_no_room_for_a_new_file_is_no_space_and_passes() -> None:
    bench = Bench(FakeDisk(capacity=70_000))
    bench.store(1, 2, 3, length=20_000)
    assert bench.codes(item(4, length=20_000)) == ["NO_SPACE"]
    bench.disk.capacity = 200_000
    bench.store(4, length=20_000)
    assert bench.content(4, 20_000) == payload_of(4, 20_000)


def test_below_the_reserve_fragments_are_refused_and_tombstones_are_written() -> None:
    settings = Settings(data_file_bytes_max=64 * 1024, reserve_bytes=1_000_000)
    bench = Bench(FakeDisk(capacity=10_000_000), settings=settings)
    bench.store(1)
    bench.disk.hidden_free_bytes = 9_100_000

    assert bench.codes(item(2), delete(1)) == ["NO_SPACE", ""]
    assert "nearly full" in bench.engine.status().read_only_reason

    bench.disk.hidden_free_bytes = 8_850_000  # above the reserve, by less than a tenth
    assert bench.codes(item(2)) == ["NO_SPACE"]
    bench.disk.hidden_free_bytes = 8_000_000
    assert bench.codes(item(2)) == [""]
    assert bench.engine.status().read_only_reason == ""


def test_a_failed_index_put_is_not_acknowledged_and_found_again_at_the_next_start() -> None:
    bench = Bench()
    bench.store(1)
    bench.home.fail_puts = True
    assert bench.codes(item(2)) == ["DISK_FAILED"]
    assert bench.engine.status().read_only_reason != ""

    bench.home.fail_puts = False
    assert bench.crashed().live().keys() == {1, 2}


def test_a_damaged_index_makes_reads_fail_and_the_server_read_only() -> None:
    bench = Bench()
    bench.store(1)
    bench.home.lost = True
    assert bench.content(1) == "DISK_FAILED"
    assert bench.codes(item(2)) == ["DISK_FAILED"]
    assert bench.engine.status().read_only_reason != ""
    assert bench.crashed().content(1) == payload_of(1)


@pytest.mark.parametrize("place", [0, 9, 40, 66, 72, 100, 171])
def test_a_flipped_bit_is_noticed_and_a_good_copy_can_be_stored_again(place: int) -> None:
    bench = Bench()
    bench.store(1, 2)
    before = bench.digest()
    bench.disk.flip(FILE, SUPERBLOCK_BYTES + place)

    result = bench.read(1)

    assert result.error is not None and result.error.code == "BAD_CHECKSUM"
    assert result.damaged == BucketEntry(1, 100, checksum_of(payload_of(1)))
    assert bench.engine.status().quarantined == 1
    assert bench.content(2) == payload_of(2)

    bench.store(1)
    assert bench.content(1) == payload_of(1)
    assert bench.engine.status().quarantined == 0
    assert bench.digest() == before
    assert bench.crashed().content(1) == payload_of(1)
    assert bench.without_index().content(1) == payload_of(1)


def test_swapped_records_are_damage() -> None:
    bench = Bench()
    bench.store(1, 2)
    size = record_bytes(100)
    content = bench.disk.files[FILE].content
    first, second = SUPERBLOCK_BYTES, SUPERBLOCK_BYTES + size
    content[first:second], content[second : second + size] = (
        content[second : second + size],
        content[first:second],
    )
    assert bench.content(1) == "BAD_CHECKSUM"
    assert bench.content(2) == "BAD_CHECKSUM"


def test_an_unreadable_block_is_damage_too() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.fail_reads = True
    result = bench.read(1)
    assert result.error is not None and result.error.code == "DISK_FAILED"
    assert result.damaged is not None


def test_digests_do_not_depend_on_the_order_of_arrival() -> None:
    one, two = Bench(), Bench()
    one.store(1, 2, 3)
    two.store(3, 4)
    two.store(1)
    assert one.digest() != two.digest()
    two.store(2)
    two.write(delete(4))
    assert one.digest() == two.digest()
    assert one.live() == two.live()


def test_a_bucket_is_listed_by_pages() -> None:
    bench = Bench()
    bench.store(*range(1, 20_000, 10), length=1)
    bucket = bucket_of(10_001)
    listed: list[int] = []
    done = ListDone(None, [], True)
    while done.more:
        done = bench.engine.run(ListJob(None, bucket, listed[-1] if listed else 0, 2))  # type: ignore[assignment]
        assert len(done.entries) <= 2
        listed += [entry.fid for entry in done.entries]
    everything = bench.engine.run(ListJob(None, bucket, 0, 10_000))
    assert isinstance(everything, ListDone)
    assert listed == [entry.fid for entry in everything.entries] == sorted(listed)
    assert len(listed) > 2


def test_comparing_tells_missing_from_deleted_from_different() -> None:
    bench = Bench()
    bench.store(1, 2)
    bench.write(delete(2))
    theirs = [BucketEntry(fid, 100, checksum_of(payload_of(fid))) for fid in (1, 2, 3)]
    theirs.append(BucketEntry(1, 100, 99))
    assert bench.engine.run(CompareJob("t", theirs)) == CompareDone("t", [theirs[2]], [2], [1])


def test_a_batch_beyond_the_limit_is_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.chunk.writer.BATCH_BYTES_MAX", 1000)
    bench = Bench(settings=SMALL)
    bench.store(*range(1, 21))
    writes = [size for what, _, size in bench.disk.log if what == "write"]
    assert max(writes[1:]) <= 1000
    assert len(writes) == 1 + 4


def test_the_watermark_moves_once_in_so_many_bytes() -> None:
    bench = Bench(settings=Settings(reserve_bytes=0, checkpoint_bytes=3 * record_bytes(100)))
    bench.store(1, 2)
    before = bench.home.durable_watermark
    bench.store(3)
    after = bench.home.durable_watermark
    assert before is not None and before.file == 0
    assert after is not None and after.offset == SUPERBLOCK_BYTES + 3 * record_bytes(100)


def test_every_write_done_carries_the_status() -> None:
    bench = Bench()
    done = bench.engine.run(WriteBatch([item(1)]))
    assert isinstance(done, WriteDone)
    assert (done.status.fragments, done.status.live_bytes, done.status.mutations) == (1, 100, 1)


def test_payloads_are_not_copied_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came from the socket goes to the disk as it is; what came from the disk goes on as it is."""
    bench = Bench()
    written: list[object] = []
    read: list[bytes] = []
    pwritev, pread = FakeFile.pwritev, FakeFile.pread

    def record_write(file: FakeFile, buffers: Sequence[Buffer], offset: int) -> None:
        written.extend(buffer.obj for buffer in buffers if isinstance(buffer, memoryview))
        pwritev(file, buffers, offset)

    def record_read(file: FakeFile, length: int, offset: int) -> bytes:
        read.append(pread(file, length, offset))
        return read[-1]

    monkeypatch.setattr(FakeFile, "pwritev", record_write)
    monkeypatch.setattr(FakeFile, "pread", record_read)
    payload = payload_of(1, 3001)
    assert bench.codes(item(1, payload)) == [""]
    assert any(source is payload for source in written)
    result = bench.read(1, 0, 3001)
    assert len(read) == 1, "one read of the disk for a get"
    assert isinstance(result.payload, memoryview) and result.payload.obj is read[0]


def test_reads_do_not_wait_for_a_sync() -> None:
    bench = Bench()
    bench.store(1)
    begun, go_on = threading.Event(), threading.Event()
    fdatasync = FakeFile.fdatasync

    def stalled(file: FakeFile) -> None:
        begun.set()
        assert go_on.wait(30)
        fdatasync(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeFile, "fdatasync", stalled)
        writer = threading.Thread(target=bench.store, args=(2,))
        writer.start()
        assert begun.wait(30)
        assert bench.content(1) == payload_of(1)
        assert bench.content(2) == "NO_FRAGMENT", "not before it is durable"
        go_on.set()
        writer.join(30)
    assert bench.content(2) == payload_of(2)


@pytest.mark.parametrize("size", [0, 2**31 + 1])
def test_a_data_file_has_at_most_2_gib(size: int) -> None:
    with pytest.raises(msgspec.ValidationError, match="data_file_bytes_max"):
        settings_from({"data_file_bytes_max": size})
    assert settings_from({"data_file_bytes_max": 2**31}).data_file_bytes_max == 2**31


# --- memory ---------------------------------------------------------------------------------------


def test_what_need_not_stay_in_memory_is_let_go_when_it_is_durable_and_nobody_waits() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.log.clear()
    cold, warm = msgspec.structs.replace(item(2), stays_warm=False), item(3)

    assert bench.codes(warm, cold) == ["", ""]
    assert [what for what, *_ in bench.disk.log] == ["write", "sync"]
    bench.store(4)

    assert bench.disk.log[2:4] == [("forget", FILE, record_bytes(100)), ("write", FILE, record_bytes(100))]
    bench.disk.log.clear()
    bench.store(5)
    assert [what for what, *_ in bench.disk.log] == ["write", "sync"], "once is enough"
    assert bench.content(2) == payload_of(2)


def test_what_was_not_stored_is_not_let_go() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.fail_syncs = 1
    cold = msgspec.structs.replace(item(2), stays_warm=False)
    assert bench.codes(cold) == ["DISK_FAILED"]
    bench.disk.log.clear()
    bench.codes(item(3))
    assert "forget" not in [what for what, *_ in bench.disk.log]
