"""One replica hangs, one fails, one answer is lost."""

from __future__ import annotations

import select
import threading
from typing import Any

from fabric.chunk.jobs import ReadBatch, ReadDone, ReadItem, WriteBatch, WriteDone
from fabric.chunk.record import record_bytes
from fabric.errors import error_from_code
from fabric.node.effects import Send, Sender
from fabric.node.lanes import Lane, Lanes
from fabric.wire.messages import (
    AbortFragment,
    Commit,
    Failed,
    FragmentData,
    FragmentStored,
    Message,
    PutFragment,
    ReadFragment,
    ReportFailure,
    Stored,
    StoreFragment,
)
from sim.disk import Gate
from tests.unit.chunk.engine_bench import Bench, checksum_of, delete, item, payload_of
from tests.unit.chunk.role_world import GROUP
from tests.unit.chunk.role_world import World as ChunkWorld
from tests.unit.proxy.world import ONE_GROUP, TWO_GROUPS, checksum
from tests.unit.proxy.world import World as ProxyWorld

EPOCH = 7
"""Of every group in ``ProxyWorld``."""
DATA = b"some bytes" * 100


class Cluster:
    """A proxy, and the three chunk servers of its first group with real engines."""

    def __init__(self, proxy: ProxyWorld) -> None:
        self.proxy = proxy
        self.chunks = ChunkWorld("a", "b", "c")
        self.chunks.assign("RW", EPOCH)

    def put(self) -> Sender:
        return self.proxy.ask(PutFragment(8000, checksum(DATA)), DATA)

    def deliver(self, send: Send) -> None:
        """Bring a request to its chunk server, and the answer to the proxy."""
        message, payload = self.answer(send)
        if isinstance(message, Failed):
            self.proxy.fail(send, error_from_code(message.code, message.message))
        else:
            self.proxy.answer(send, message, payload)

    def answer(self, send: Send) -> tuple[Message, Any]:
        name = send.endpoint.removeprefix("tcp://").removesuffix(":7410")
        return self.chunks.replies[self.chunks.ask(send.message, send.payload, name)]  # type: ignore[arg-type]

    def stores(self, group: int) -> list[Send]:
        return [send for send in self.proxy.sends(StoreFragment) if send.message.group == group]


def test_fault_11_the_fsync_of_one_replica_takes_30_s_and_the_fragment_goes_to_another_group() -> None:
    proxy = ProxyWorld(TWO_GROUPS)
    sender = proxy.ask(PutFragment(8000, checksum(DATA)), DATA)
    first = proxy.sends(StoreFragment)
    for send in first[:2]:
        proxy.confirm(send)
    proxy.wait(proxy.settings.store_timeout_s - 0.1)
    assert proxy.replies == []
    proxy.wait(0.2)

    second = [send for send in proxy.sends(StoreFragment) if send.message.fid != first[0].message.fid]
    assert {send.message.group for send in second} == {1, 2} - {first[0].message.group}
    for send in second:
        proxy.confirm(send)
    stored = proxy.reply_to(sender).message
    assert isinstance(stored, Stored)
    assert stored.fragment.fid == second[0].message.fid
    report = proxy.only(ReportFailure).message
    assert (report.fid, report.code) == (first[2].message.fid, "DEADLINE")
    assert {send.message.fid for send in proxy.sends(AbortFragment)} == {first[0].message.fid}

    proxy.wait(30)
    proxy.confirm(first[2])  # after 30 s
    assert len(proxy.replies) == 1
    proxy.assert_idle()


def test_fault_11_while_an_fsync_takes_30_s_heartbeats_and_reads_go_on() -> None:
    world = ChunkWorld("a", automatic=False)
    world.run_reads()
    world.assign("RW", 1)
    world.store(1)
    world.run_job("write")
    hanging = world.store(2)
    beats = len(world.beats)
    for second in range(30):
        world.advance(1)
        reading = world.ask(ReadFragment(1000, GROUP, 1, 0, 100))
        world.run_reads()
        assert isinstance(world.replies[reading][0], FragmentData), second
    assert len(world.beats) >= beats + 28
    assert world.beat().pending_bytes > 0
    assert world.outcome(hanging) == ""
    assert world.outcome(world.store(3, deadline_ms=1000)) == ""
    world.advance(2)

    world.run_job("write")  # at last
    assert world.outcome(hanging) == "stored"
    world.advance(1)
    assert world.outcome(4) != "stored"
    assert world.servers["a"].bench.content(3) == "NO_FRAGMENT", "its deadline passed before it was begun"


def test_fault_11_a_sync_that_hangs_in_the_disk_holds_up_writes_only() -> None:
    bench = Bench()
    bench.store(1)
    bench.disk.gate = gate = Gate()
    lanes = Lanes({name: Lane(bench.engine.run) for name in ("write", "read")})
    try:
        lanes.submit("write", WriteBatch([item(2)]))
        assert gate.reached.wait(10)
        lanes.submit("read", ReadBatch([ReadItem("old", 1, 0, 100), ReadItem("new", 2, 0, 100)]))
        (read,) = next_results(lanes)
        assert isinstance(read, ReadDone)
        old, new = read.results
        assert bytes(old.payload) == payload_of(1)
        assert new.error is not None and new.error.code == "NO_FRAGMENT"
        assert threading.active_count() >= 3
    finally:
        gate.opened.set()
    (written,) = next_results(lanes)
    assert isinstance(written, WriteDone)
    assert [outcome.error for outcome in written.outcomes] == [None]
    lanes.close(10)
    assert bench.crashed().content(2) == payload_of(2)


def next_results(lanes: Lanes) -> list[object]:
    while True:
        assert select.select([lanes.wake_fd], [], [], 10)[0], "nothing came"
        results = lanes.results()
        if results:
            return results


def test_fault_12_two_replicas_are_durable_the_third_fails_and_another_group_takes_it() -> None:
    cluster = Cluster(ProxyWorld(TWO_GROUPS, seed=1))
    sender = cluster.put()
    while not cluster.stores(1):  # the first choice is random
        for send in cluster.stores(2):
            cluster.proxy.confirm(send)
        sender = cluster.put()
    first = cluster.stores(1)
    fid = first[0].message.fid
    cluster.chunks.servers["c"].bench.disk.fail_syncs = 1
    for send in first:
        cluster.deliver(send)
    for send in cluster.stores(2):
        cluster.proxy.confirm(send)

    stored = cluster.proxy.reply_to(sender).message
    assert isinstance(stored, Stored)
    assert (stored.fragment.group, stored.fragment.fid != fid) == (2, True)
    assert_gone(cluster, fid)


def test_fault_12_two_replicas_are_durable_the_third_fails_and_there_is_no_other_group() -> None:
    cluster = Cluster(ProxyWorld(ONE_GROUP))
    sender = cluster.put()
    first = cluster.stores(1)
    cluster.chunks.servers["c"].bench.disk.fail_syncs = 1
    for send in first:
        cluster.deliver(send)
    message = cluster.proxy.reply_to(sender).message
    assert isinstance(message, Failed)
    assert (message.code, message.retryable) == ("NO_WRITABLE_GROUP", True)
    assert_gone(cluster, first[0].message.fid)


def assert_gone(cluster: Cluster, fid: int) -> None:
    """The failed fid is readable nowhere, not after restarts either, and its space comes back."""
    aborts = cluster.proxy.sends(AbortFragment)
    assert len(aborts) == 3
    assert cluster.proxy.sends(Commit) == []
    for send in aborts:
        cluster.deliver(send)
    for name, server in cluster.chunks.servers.items():
        bench = server.bench
        if name == "c":
            bench = bench.killed()  # it has failed, and is restarted; the abort comes again
            assert bench.codes(delete(fid)) == [""]
        assert bench.content(fid, len(DATA)) == "NO_FRAGMENT"
        assert bench.crashed().content(fid, len(DATA)) == "NO_FRAGMENT"
        assert bench.without_index().content(fid, len(DATA)) == "NO_FRAGMENT"
        bench.compact()
        assert bench.engine.status().data_bytes == record_bytes(0), "only the tombstone is left"


def test_fault_13_one_acknowledgement_is_lost_and_the_same_fid_is_tried_again() -> None:
    """The same acknowledgement, one record; other bytes are a conflict; restarts and compaction between."""
    world = ChunkWorld("a")
    world.assign("RW", 1)
    first = world.replies[world.store(5)][0]
    bench = world.servers["a"].bench
    assert isinstance(first, FragmentStored)
    for _ in range(3):
        assert world.replies[world.store(5)][0] == first
        assert world.outcome(other_bytes(world)) == "CONFLICT"
        bench.compact()
        assert bench.engine.status().fragments == 1
        assert bench.engine.status().data_bytes == record_bytes(100)
    for after in (bench.crashed(), bench.killed(), bench.without_index()):
        assert after.codes(item(5)) == [""]
        assert after.codes(item(5, b"other bytes")) == ["CONFLICT"]
        assert after.engine.status().data_bytes == record_bytes(100)
        assert after.content(5) == payload_of(5)


def other_bytes(world: ChunkWorld) -> int:
    data = b"other bytes"
    return world.ask(StoreFragment(3000, GROUP, 1, 5, checksum_of(data)), data)


def test_fault_13_both_tries_are_in_one_batch() -> None:
    world = ChunkWorld("a", automatic=False)
    world.run_reads()
    world.assign("RW", 1)
    world.store(1)
    asked = [world.store(5), world.store(5), other_bytes(world)]
    world.run_job("write")
    world.run_job("write")
    assert [world.outcome(request) for request in asked] == ["stored", "stored", "CONFLICT"]
    assert world.servers["a"].bench.engine.status().data_bytes == 2 * record_bytes(100)
