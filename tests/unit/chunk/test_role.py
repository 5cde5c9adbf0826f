"""One chunk server: when it writes, when it refuses, what it tells the master."""

from __future__ import annotations

import msgspec
import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.jobs import BATCH_ITEMS_MAX, WriteBatch
from fabric.chunk.record import RECORD_HEADER_BYTES, SUPERBLOCK_BYTES, record_bytes
from fabric.chunk.write_queue import ITEM_BYTES
from fabric.node.effects import Sender
from fabric.settings import Settings
from fabric.warmth import WARM_BYTES_MIN
from fabric.wire.messages import (
    AbortFragment,
    Assignment,
    ChunkDetails,
    Commit,
    DeleteOperation,
    DiskCheck,
    Failed,
    FragmentAborted,
    FragmentData,
    FragmentStored,
    ListBucket,
    ListBuckets,
    MaintainChunk,
    Ping,
    Pong,
    ReadFragment,
    StoreFragment,
)
from tests.unit.chunk.engine_bench import checksum_of, payload_of
from tests.unit.chunk.role_world import GROUP, MASTER, SETTINGS, World


def writable(epoch: int = 1, **options: object) -> World:
    world = World(**options)  # type: ignore[arg-type]
    if not world.automatic:
        world.run_reads()
    world.assign("RW", epoch)
    return world


def test_a_fragment_is_stored_and_read_back() -> None:
    world = writable(3)
    assert world.replies[world.store(5, epoch=3)][0] == FragmentStored(
        GROUP, 3, 5, 100, checksum_of(payload_of(5))
    )
    message, payload = world.replies[world.ask(ReadFragment(1000, GROUP, 5, 10, 20))]
    assert message == FragmentData(5, 10, checksum_of(payload_of(5)[10:30]))
    assert bytes(payload) == payload_of(5)[10:30]


def test_somebody_on_the_same_machine_is_told_where_a_fragment_lies() -> None:
    world = writable()
    world.store(4)
    world.store(5)
    message, payload = world.replies[world.ask(ReadFragment(1000, GROUP, 5, 10, 20, "this host"))]
    assert isinstance(message, FragmentData)
    assert (message.fid, message.offset, message.checksum) == (5, 10, checksum_of(payload_of(5)))
    assert (message.file, bytes(payload)) == (f"/data/fragments/{file_name(1)}", b"")
    disk = world.servers["a"].bench.disk
    assert disk.open(file_name(1)).pread(100, message.position) == payload_of(5)


@pytest.mark.parametrize("near", ["", "another host"])
def test_others_get_bytes(near: str) -> None:
    world = writable()
    world.store(5)
    message, payload = world.replies[world.ask(ReadFragment(1000, GROUP, 5, 10, 20, near))]
    assert isinstance(message, FragmentData)
    assert (message.file, bytes(payload)) == ("", payload_of(5)[10:30])


def test_nobody_is_told_a_place_of_what_is_not_there() -> None:
    answer = writable().answer(ReadFragment(1000, GROUP, 5, 10, 20, "this host"))
    assert isinstance(answer, Failed)
    assert answer.code == "NO_FRAGMENT"


def test_it_says_who_it_is() -> None:
    assert World().answer(Ping(100)) == Pong("chunk", "a", "test")


def test_what_is_not_for_a_chunk_server_is_refused() -> None:
    answer = writable().answer(Commit(100, b"x" * 16, [DeleteOperation("p")]))
    assert isinstance(answer, Failed)
    assert answer.code == "BAD_REQUEST"


# --- who may write -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["WAIT", "SYNC", "RO"])
def test_only_rw_takes_writes(mode: str) -> None:
    world = World("a", "b") if mode == "SYNC" else World()
    world.assign(mode, 1)
    assert world.outcome(world.store(5)) == "NOT_WRITABLE"
    assert world.servers["a"].bench.live() == {}


def test_before_the_first_assignment_nothing_is_written_and_everything_is_read() -> None:
    world = writable()
    world.store(5)
    world.cut.add("master")
    bench = world.servers["a"].bench
    world.servers.clear()
    world.add("a", bench.crashed())
    assert world.outcome(world.store(6)) == "STALE_EPOCH"
    assert isinstance(world.answer(ReadFragment(1000, GROUP, 5, 0, 100)), FragmentData)


@pytest.mark.parametrize(("epoch", "code"), [(4, "STALE_EPOCH"), (5, "stored"), (6, "NOT_WRITABLE")])
def test_only_the_exact_epoch_takes_writes(epoch: int, code: str) -> None:
    world = writable(5)
    assert world.outcome(world.store(1, epoch=epoch)) == code


def test_another_group_is_a_stale_view() -> None:
    world = writable()
    payload = payload_of(1)
    answer = world.answer(StoreFragment(1000, GROUP + 1, 1, 1, checksum_of(payload)), payload)
    assert isinstance(answer, Failed)
    assert answer.code == "STALE_EPOCH"


def test_without_the_master_it_writes_for_a_lease_and_reads_for_ever() -> None:
    world = writable()
    world.advance(0.9)
    assert world.outcome(world.store(1)) == "stored"
    last_sent = world.now
    world.advance(0.5)
    world.cut.add("master")
    granted_until = 104.0 + 1.0  # the heartbeat at 101.0 was the last to be answered
    assert last_sent < granted_until
    world.advance(granted_until - world.now - 0.01)
    assert world.outcome(world.store(2)) == "stored"
    world.advance(0.02)
    assert world.outcome(world.store(3)) == "NOT_WRITABLE"
    world.advance(1000)
    assert isinstance(world.answer(ReadFragment(1000, GROUP, 1, 0, 100)), FragmentData)
    world.cut.clear()
    world.advance(1)
    assert world.outcome(world.store(3)) == "stored"


def test_an_unasked_assignment_grants_no_lease() -> None:
    world = writable()
    world.cut.add("master")
    world.advance(3.9)
    world.tell()
    world.advance(0.2)
    assert world.outcome(world.store(1)) == "NOT_WRITABLE"


def test_the_lease_counts_from_the_sending_of_the_heartbeat() -> None:
    world = World(silent=True)
    world.advance(1.9)  # the answer to the first heartbeat, sent at 100.0, takes 1.9 s
    first = world.servers["a"].role._calls
    (request_id,) = first._open
    assignment = Assignment(1, GROUP, 1, "RW", [], [], 2000)
    role = world.servers["a"].role
    role.receive(assignment, Sender(MASTER, request_id), world.now)
    assert world.outcome(world.store(1)) == "stored"
    world.now = 102.01
    assert world.outcome(world.store(2)) == "NOT_WRITABLE"


def test_an_older_assignment_is_ignored() -> None:
    world = writable(5)
    world.assign("RO", 4)
    assert world.outcome(world.store(1, epoch=5)) == "stored"
    world.assign("RO", 4, term=2)
    assert world.outcome(world.store(2, epoch=5)) == "NOT_WRITABLE"


def test_a_stranger_cannot_assign() -> None:
    world = writable(5)
    role = world.servers["a"].role
    role.receive(Assignment(9, GROUP, 9, "RO", [], [], 0), Sender("tcp://other:1", 0), world.now)
    assert world.outcome(world.store(1, epoch=5)) == "stored"


def test_a_write_that_was_running_when_the_epoch_rose_is_not_acknowledged() -> None:
    world = writable(automatic=False)
    running, waiting = world.store(1), world.store(2)
    world.assign("SYNC", 2)
    assert world.run_job()
    assert world.outcome(running) == "STALE_EPOCH"
    assert world.outcome(waiting) == "STALE_EPOCH"
    assert not world.run_job()
    assert world.servers["a"].bench.live().keys() == {1}


def test_a_write_that_outlives_the_lease_is_not_acknowledged() -> None:
    world = writable(automatic=False)
    running = world.store(1, deadline_ms=60_000)
    world.cut.add("master")
    world.advance(30)
    world.run_job()
    assert world.outcome(running) == "NOT_WRITABLE"


# --- group commit --------------------------------------------------------------------------------


def test_an_idle_disk_is_not_kept_waiting() -> None:
    world = writable(automatic=False)
    world.store(1)
    assert len(world.servers["a"].lanes["write"]) == 1


def test_what_arrives_during_a_write_shares_the_next_one() -> None:
    world = writable(automatic=False)
    world.store(1)
    later = [world.store(fid) for fid in range(2, 12)]
    assert len(world.servers["a"].lanes["write"]) == 1
    disk = world.servers["a"].bench.disk

    world.run_job()
    assert [world.outcome(request) for request in later] == [""] * 10
    disk.log.clear()
    world.run_job()

    assert [world.outcome(request) for request in later] == ["stored"] * 10
    assert [what for what, _, _ in disk.log] == ["write", "sync"]


def forgotten(world: World, name: str) -> int:
    log = world.servers[name].bench.disk.log
    return sum(length for what, _, length in log if what == "forget")


@pytest.mark.parametrize("one_warm_copy", [True, False])
def test_one_replica_of_a_large_fragment_keeps_it_in_memory(one_warm_copy: bool) -> None:
    settings = msgspec.structs.replace(SETTINGS, one_warm_copy=one_warm_copy)
    world = World("a", "b", "c", settings=settings)
    world.assign("RW", 1)
    for name in "abc":
        for fid in (30, 31, 32):
            assert world.outcome(world.store(fid, name=name, size=WARM_BYTES_MIN)) == "stored"
        world.store(33, name=name)  # what is let go, is with the next batch
        cold = 2 * record_bytes(WARM_BYTES_MIN) if one_warm_copy else 0
        assert forgotten(world, name) == cold, name


def test_a_batch_is_bounded_in_count_and_in_bytes() -> None:
    world = writable(automatic=False)
    world.store(1)
    for fid in range(2, 2 + BATCH_ITEMS_MAX + 5):
        world.store(fid, size=1)
    world.run_job()
    batch = world.servers["a"].lanes["write"][0]
    assert isinstance(batch, WriteBatch)
    assert len(batch.items) == BATCH_ITEMS_MAX

    world = writable(automatic=False)
    for fid in range(1, 12):
        world.store(fid, size=4 * 1024 * 1024)
    world.run_job()
    batch = world.servers["a"].lanes["write"][0]
    assert isinstance(batch, WriteBatch)
    assert len(batch.items) == 7


def test_one_bad_item_does_not_spoil_the_batch() -> None:
    world = writable(automatic=False)
    world.store(1)
    bad = world.ask(StoreFragment(1000, GROUP, 1, 2, 0), b"bytes of another checksum")
    good = world.store(3)
    world.run_job()
    world.run_job()
    assert (world.outcome(bad), world.outcome(good)) == ("BAD_CHECKSUM", "stored")


def test_a_store_whose_deadline_passed_while_it_waited_is_not_written() -> None:
    world = writable(automatic=False)
    world.store(1)
    late, patient = world.store(2, deadline_ms=500), world.store(3, deadline_ms=3000)
    world.now += 1.0
    world.run_job()
    assert world.outcome(late) == "DEADLINE"
    world.run_job()
    assert world.outcome(patient) == "stored"
    assert world.servers["a"].bench.live().keys() == {1, 3}


def test_bytes_in_flight_are_bounded() -> None:
    settings = Settings(reserve_bytes=0, chunk_inflight_bytes_max=10_000)
    world = writable(automatic=False, settings=settings)
    accepted = [world.store(fid, size=2000) for fid in range(1, 6)]
    outcomes = [world.outcome(request) for request in accepted]
    assert outcomes == ["", "", "", "", "BUSY"]
    world.run_job()
    world.run_job()
    again = world.store(9, size=2000)
    world.run_job()
    assert world.outcome(again) == "stored"
    assert world.servers["a"].role._writes.pending_bytes == 0


def test_a_disk_that_hangs_stops_no_heartbeat_and_no_read() -> None:
    world = writable()
    world.store(1)
    world.automatic = False
    world.store(2)  # its write never ends
    before = len(world.beats)
    for _ in range(10):
        world.advance(1.0)
        world.run_reads()
    assert len(world.beats) - before >= 9
    request = world.ask(ReadFragment(1000, GROUP, 1, 0, 100))
    world.run_reads()
    assert isinstance(world.replies[request][0], FragmentData)


# --- aborts, lists, reads ------------------------------------------------------------------------


def test_an_abort_holds_before_and_after_the_store() -> None:
    world = writable()
    world.store(1)
    assert world.answer(AbortFragment(1000, GROUP, 1)) == FragmentAborted(1)
    assert world.answer(AbortFragment(1000, GROUP, 2)) == FragmentAborted(2)
    assert world.outcome(world.store(1)) == world.outcome(world.store(2)) == "CONFLICT"


def test_an_abort_follows_the_store_that_it_aborts_in_the_same_queue() -> None:
    world = writable(automatic=False)
    world.store(1)
    stored = world.store(2)
    aborted = world.ask(AbortFragment(1000, GROUP, 2))
    world.run_job()
    world.run_job()
    assert world.outcome(stored) == "stored"
    assert world.outcome(aborted) == "FragmentAborted"
    assert world.servers["a"].bench.live().keys() == {1}


def test_another_groups_lists_and_aborts_are_refused() -> None:
    world = writable()
    for request in (
        ListBuckets(1000, GROUP + 1),
        ListBucket(1000, GROUP + 1, 0, 0),
        AbortFragment(1000, GROUP + 1, 1),
    ):
        answer = world.answer(request)
        assert isinstance(answer, Failed)
        assert answer.code == "BAD_REQUEST"


def test_listings_are_bounded() -> None:
    world = writable(automatic=False)
    asked = [world.ask(ListBuckets(1000, GROUP)) for _ in range(70)]
    assert [world.outcome(request) for request in asked].count("BUSY") == 6
    world.run_reads()
    assert [world.outcome(request) for request in asked].count("Buckets") == 64
    assert world.outcome(world.ask(ListBuckets(1000, GROUP))) == ""


def test_small_reads_share_a_job_and_large_ones_do_not() -> None:
    world = writable(automatic=False)
    world.run_reads()
    for _ in range(40):
        world.ask(ReadFragment(1000, GROUP, 1, 0, 100))
    jobs = world.servers["a"].lanes["read"]
    assert len(jobs) == SETTINGS.read_threads
    sizes = []
    while jobs:
        sizes.append(len(getattr(jobs[0], "items", [])))
        world.run_job("read")
    assert sum(sizes) == 40
    assert max(sizes) == 16
    for _ in range(4):
        world.ask(ReadFragment(1000, GROUP, 1, 0, 4 * 1024 * 1024))
    assert [len(job.items) for job in jobs if hasattr(job, "items")] == [1, 1]


def test_a_read_whose_deadline_passed_is_not_done() -> None:
    world = writable(automatic=False)
    world.run_reads()
    requests = [world.ask(ReadFragment(500, GROUP, 1, 0, 4 * 1024 * 1024)) for _ in range(3)]
    world.now += 0.6
    world.run_reads()
    assert world.outcome(requests[2]) == "DEADLINE"


# --- the operator --------------------------------------------------------------------------------


def details_of(world: World, action: str = "status") -> ChunkDetails:
    message = MaintainChunk(1000, action)  # type: ignore[arg-type]
    answer = world.answer(message)
    assert isinstance(answer, ChunkDetails)
    return answer


def test_the_operator_is_told_how_it_is() -> None:
    world = writable(3)
    world.store(5, epoch=3)
    world.advance(1.0)
    details = details_of(world)
    assert (details.server, details.version, details.incarnation) == ("a", "test", 1)
    assert (details.group, details.epoch, details.mode, details.read_only_reason) == (GROUP, 3, "RW", "")
    assert (details.fragments, details.live_bytes, details.files, details.garbage_bytes) == (1, 100, 1, 0)
    assert details.data_bytes > 100
    assert not details.scrub.ordered
    assert not details.compaction.ordered


def test_an_ordered_scrub_is_a_pass_of_its_own() -> None:
    world = writable()
    world.store(5)
    world.advance(3600.0)
    before = details_of(world).scrub
    assert (before.passes, before.running) == (0, False), "by itself none is due yet"
    assert details_of(world, "scrub").scrub.ordered
    world.advance(60.0)
    after = details_of(world).scrub
    assert (after.passes, after.running, after.ordered, after.records) == (1, False, False, 1)


def test_an_ordered_compaction_gives_all_garbage_back() -> None:
    world = writable()
    for fid in range(1, 21):
        world.store(fid, size=1000)
    world.ask(AbortFragment(1000, GROUP, 7))
    world.advance(600.0)
    before = details_of(world)
    assert before.garbage_bytes > 1000, "too little to be compacted unasked"
    assert (before.compaction.finished, world.beat().garbage_bytes) == (0, before.garbage_bytes)
    assert details_of(world, "compact").compaction.ordered
    world.advance(60.0)
    after = details_of(world)
    assert (after.fragments, after.garbage_bytes, after.compaction.ordered) == (19, 0, False)
    assert (after.compaction.finished, world.beat().garbage_bytes) == (1, 0)
    assert before.data_bytes - after.data_bytes == before.garbage_bytes


def test_damage_is_in_the_details_and_in_the_heartbeat() -> None:
    world = writable()
    world.store(5)
    world.servers["a"].bench.disk.flip(file_name(1), SUPERBLOCK_BYTES + RECORD_HEADER_BYTES)
    world.ask(ReadFragment(1000, GROUP, 5, 0, 100))
    world.advance(2.0)
    assert (details_of(world).quarantined, world.beat().quarantined) == (1, 1)


def test_what_was_read_and_written_is_counted() -> None:
    world = writable()
    world.store(5)
    world.store(6, size=300)
    world.ask(ReadFragment(1000, GROUP, 6, 10, 20))
    world.ask(ReadFragment(1000, GROUP, 7, 0, 1))  # there is no such fragment
    details = details_of(world)
    assert (details.writes, details.written_bytes, details.reads, details.read_bytes) == (2, 400, 1, 20)
    assert (details.pending_reads, details.pending_writes, details.oldest_write_ms) == (0, 0, 0)


def test_waiting_writes_are_ended_on_order_and_the_one_under_way_is_not() -> None:
    world = writable(automatic=False)
    asked = [world.store(fid) for fid in (1, 2, 3)]
    world.advance(0.5)
    waiting = details_of(world)
    assert (waiting.pending_writes, waiting.oldest_write_ms, waiting.killed) == (3, 500, 0)

    details = details_of(world, "kill-pending")
    assert (details.killed, details.pending_writes, details.pending_bytes) == (2, 1, 100 + ITEM_BYTES)
    assert [world.outcome(request) for request in asked] == ["", "UNAVAILABLE", "UNAVAILABLE"]
    answer = world.replies[asked[1]][0]
    assert isinstance(answer, Failed) and answer.retryable
    assert world.run_job()
    assert world.outcome(asked[0]) == "stored"
    assert world.servers["a"].bench.live().keys() == {1}
    assert details_of(world, "kill-pending").killed == 0


def test_deletions_that_were_ended_are_ordered_again() -> None:
    world = writable(automatic=False)
    world.store(1)
    world.assign("RW", 1, deletes={"a": [7]})
    assert details_of(world, "kill-pending").killed == 1
    while world.run_job():
        pass
    assert world.servers["a"].bench.live().keys() == {1}
    world.automatic = True
    world.advance(2.0)
    assert world.beat().deleted == [7]


def test_a_disk_that_fails_its_check_is_told_to_the_operator_and_to_the_master() -> None:
    world = writable()
    assert details_of(world, "check-disk").disk.running
    world.advance(1.0)
    assert details_of(world).disk == DiskCheck(checked_at_ms=1000, bytes=2**20)
    world.servers["a"].bench.disk.fail_syncs = 1
    details_of(world, "check-disk")
    world.advance(2.0)
    found = details_of(world)
    assert (found.disk.running, found.disk.problem) == (False, "injected: fdatasync failed")
    assert found.read_only_reason == world.beat().read_only_reason == f"disk check: {found.disk.problem}"


def test_before_the_engine_has_said_how_it_is_the_operator_is_put_off() -> None:
    world = World(automatic=False)
    assert world.outcome(world.ask(MaintainChunk(1000, "status"))) == "BUSY"
    world.run_reads()
    assert world.outcome(world.ask(MaintainChunk(1000, "status"))) == "ChunkDetails"


# --- heartbeats ----------------------------------------------------------------------------------


def test_the_first_heartbeat_says_what_the_engine_holds() -> None:
    beat = World().beats[0]
    assert (beat.server, beat.term, beat.epoch, beat.synced_digest) == ("a", 0, 0, b"")
    assert (beat.fragments, beat.endpoint, beat.group) == (0, "tcp://a:7410", GROUP)
    assert 0 < beat.free_bytes <= beat.capacity_bytes


def test_heartbeats_come_once_an_interval_and_at_a_change_at_once() -> None:
    world = writable()
    world.beats.clear()
    world.advance(10.0)
    assert len(world.beats) == 10
    world.assign("RO", 2)
    assert world.beat().epoch == 2
    assert len(world.beats) == 11


def test_only_one_heartbeat_is_without_an_answer() -> None:
    world = World(silent=True)
    world.advance(1.9)
    assert len(world.beats) == 1
    world.advance(1.0)
    assert len(world.beats) == 2


def test_a_failed_disk_is_reported_at_once() -> None:
    world = writable()
    world.store(1)
    world.servers["a"].bench.disk.fail_syncs = 1
    before = len(world.beats)
    assert world.outcome(world.store(2)) == "DISK_FAILED"
    assert len(world.beats) == before + 1
    assert "fdatasync" in world.beat().read_only_reason


def test_deletes_are_done_in_any_mode_and_confirmed_until_the_master_forgets_them() -> None:
    for mode in ("WAIT", "RO", "RW", "SYNC"):
        world = writable()
        world.store(1)
        world.assign(mode, 2, deletes={"a": [1, 7, 1]})
        assert world.beat().deleted == [1, 7], mode
        assert world.servers["a"].bench.live() == {}
        writes = len(world.servers["a"].bench.disk.log)
        world.advance(3)
        assert world.beat().deleted == [1, 7]
        assert len(world.servers["a"].bench.disk.log) == writes
        world.assign(mode, 2)
        world.advance(1)
        assert world.beat().deleted == []


def test_confirming_deletes_makes_no_storm_of_heartbeats() -> None:
    world = writable()
    world.beats.clear()
    world.assign("RW", 2, deletes={"a": list(range(1, 2000))})
    world.advance(2.0)
    assert len(world.beats) <= 5


def test_deletes_that_the_disk_refuses_are_not_confirmed_and_keep_it_from_comparing() -> None:
    world = writable()
    world.store(1)
    world.servers["a"].bench.disk.fail_syncs = 1
    world.assign("SYNC", 2, deletes={"a": [1]})
    world.advance(5)
    assert world.beat().deleted == []
    assert world.beat().synced_digest == b""


def test_what_is_being_deleted_is_given_to_nobody() -> None:
    """A member whose tombstone is done and forgotten would copy it back, and nobody would delete it again."""
    world = World("a", "b", automatic=False)
    world.servers["a"].bench.store(5)
    world.assign("RW", 1, deletes={"a": [5]})
    read = world.ask(ReadFragment(1_000, GROUP, 5, 0, 100))
    world.settle()
    answer, _ = world.replies[read]
    assert isinstance(answer, Failed) and answer.code == "NO_FRAGMENT"
