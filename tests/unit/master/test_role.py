"""What is the role's own: its term, its numbers, its answers to what it does not know, the operator."""

from __future__ import annotations

import msgspec
import pytest

from fabric.master import keys
from fabric.master.store import StoreDamaged
from fabric.node.effects import Exit, Reply, Sender
from fabric.wire.messages import (
    CatalogChanged,
    ClusterStatus,
    DeleteOperation,
    Failed,
    FidLease,
    GetStatus,
    GetTopology,
    LeaseFids,
    ListBuckets,
    Noted,
    Ping,
    Pong,
    PutOperation,
    ReportFailure,
    ServerStatusSet,
    SetServerStatus,
    Stat,
    Topology,
)
from tests.unit.master.bench import GIB, MasterBench, Server, deliver, topologies, writable_bench


def test_ping_is_answered_even_while_the_master_starts() -> None:
    bench = MasterBench(start=False)
    bench.hold = True
    bench.restart()
    assert bench.ask(Ping(1_000), Pong) == Pong("master", "master", "test")


def test_nothing_else_is_answered_before_the_term_is_durable() -> None:
    bench = MasterBench(start=False)
    bench.hold = True
    bench.restart()
    for message in (Stat(1_000, "a"), GetTopology(1_000), LeaseFids(1_000, "p", 1), Server("chunk-1").beat()):
        refusal = bench.refused(message)
        assert (refusal.code, refusal.retryable) == ("UNAVAILABLE", True)
    assert bench.store.get(keys.TERM) is None

    bench.write_held()
    assert bench.store.get(keys.TERM) == keys.number(1)
    assert bench.ask(GetTopology(1_000), Topology).term == 1


def test_every_start_is_a_new_term_even_after_a_crash_before_the_first_answer() -> None:
    bench = MasterBench()
    terms = []
    for _ in range(3):
        bench.restart()
        terms.append(bench.ask(GetTopology(1_000), Topology).term)
    assert terms == [2, 3, 4]


def test_a_request_for_another_role_is_refused() -> None:
    refusal = MasterBench().refused(ListBuckets(1_000, 1))
    assert (refusal.code, refusal.retryable) == ("BAD_REQUEST", False)
    assert "ListBuckets" in refusal.message


def test_a_stray_reply_is_ignored() -> None:
    bench = MasterBench()
    assert bench.tell(Noted()) == []
    assert bench.tell(Failed("BUSY", "", True)) == []


def test_a_report_of_a_failure_is_heard() -> None:
    bench, _ = writable_bench()
    for server in ("chunk-1", "nobody"):
        assert bench.ask(ReportFailure(1_000, "p", server, 1, 5, "DEADLINE", "late"), Noted) == Noted()


def test_published_numbers_have_no_gap_and_a_snapshot_has_the_last_one() -> None:
    bench, servers = writable_bench(replicas=1)
    numbers = [bench.ask(GetTopology(1_000), Topology).sequence]
    bench.commit(PutOperation("a", [], immutable=True))
    effects = bench.tell(bench.commit_message(DeleteOperation("a")))
    servers[0].restart()
    effects += bench.heartbeat(servers[0]) + bench.tick(10.0)
    published = [e.message for e in effects if not isinstance(e, Reply | Exit)]  # type: ignore[union-attr]
    assert next(type(message) for message in published) is CatalogChanged
    assert len(published) >= 3
    numbers += [message.sequence for message in published]

    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert bench.ask(GetTopology(1_000), Topology).sequence == numbers[-1]


def test_free_space_shows_in_a_snapshot_without_a_new_number() -> None:
    bench, servers = writable_bench()
    before = bench.ask(GetTopology(1_000), Topology)
    servers[1].free_bytes = 3 * GIB
    assert topologies(bench.heartbeat(servers[1])) == []

    after = bench.ask(GetTopology(1_000), Topology)
    assert (after.sequence, after.groups[0].free_bytes) == (before.sequence, 3 * GIB)


def test_the_operator_sets_a_server_read_only_and_back_durably_and_repeatably() -> None:
    bench, servers = writable_bench()
    first = bench.ask(SetServerStatus(1_000, "chunk-2", "ro"), ServerStatusSet)
    again = bench.ask(SetServerStatus(1_000, "chunk-2", "ro"), ServerStatusSet)
    assert (first.changed, again.changed) == (True, False)
    assert (first.node.wanted, first.node.state) == ("ro", "RO")

    bench.restart()
    for server in servers:
        deliver(bench.heartbeat(server), *servers)
    assert [server.mode for server in servers] == ["SYNC", "RO", "SYNC"]
    status = bench.ask(GetStatus(1_000), ClusterStatus)
    assert status.nodes[1].reason == "set read-only by the operator"

    effects = bench.tell(SetServerStatus(1_000, "chunk-2", "rw"))
    deliver(effects, *servers)
    for server in servers:
        server.synced_digest = b"equal"
        deliver(bench.heartbeat(server), *servers)
    assert [server.mode for server in servers] == ["RW"] * 3


def test_the_operators_word_is_durable_before_it_is_confirmed() -> None:
    bench, _servers = writable_bench()
    bench.hold = True
    effects = bench.tell(SetServerStatus(1_000, "chunk-2", "ro"))
    assert not any(isinstance(e, Reply) for e in effects)
    bench.restart()
    bench.write_held()
    assert bench.ask(GetStatus(1_000), ClusterStatus).nodes[1].wanted == "rw"


def test_a_status_set_meanwhile_does_not_hide_from_the_group_that_a_disk_was_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, servers = writable_bench()
    bench.tick(10.0)
    monkeypatch.setattr("fabric.master.journal.CHANGES_PER_BATCH_MAX", 1)
    bench.hold = True
    servers[1].restart()
    bench.heartbeat(servers[1])
    servers[0].restart(uuid="new disk")
    bench.heartbeat(servers[0])
    bench.tell(SetServerStatus(1_000, "chunk-1", "ro"))
    bench.write_held()  # the epoch for chunk-2's return
    replies = [e for e in bench.write_held() if isinstance(e, Reply)]
    assert [type(reply.message) for reply in replies] == [ServerStatusSet]
    bench.hold = False
    bench.restart()  # before the epoch that has the new disk was written

    node = bench.ask(GetStatus(1_000), ClusterStatus).nodes[0]
    assert (node.uuid, node.wanted) == ("uuid-of-chunk-1", "ro")


@pytest.mark.parametrize(
    ("server", "status", "code", "text"),
    [
        ("chunk-9", "ro", "REFUSED", "known servers: chunk-1, chunk-2, chunk-3"),
        ("chunk-1", "off", "BAD_REQUEST", "'off'"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_what_would(
    server: str, status: str, code: str, text: str
) -> None:
    bench, _ = writable_bench()
    refusal = bench.refused(SetServerStatus(1_000, server, status))
    assert refusal.code == code
    assert text in refusal.message


def test_status_has_the_numbers_of_nodes_and_groups() -> None:
    bench, servers = writable_bench()
    bench.lease(500)
    servers[2].free_bytes = 7 * GIB
    bench.heartbeat(servers[2])
    bench.now = 2.5

    status = bench.ask(GetStatus(1_000), ClusterStatus)
    assert (status.term, status.uptime_ms, status.version, status.fid_high_water) == (1, 2_500, "test", 501)
    assert [(n.server, n.state, n.reason, n.seen_ms_ago) for n in status.nodes] == [
        (server.name, "RW", "", 2_500) for server in servers
    ]
    (group,) = status.groups
    assert (group.state, group.replicas, group.free_bytes) == ("WRITABLE", 3, 7 * GIB)


def test_damage_is_shown_to_the_operator_and_logged_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, servers = writable_bench()
    caplog.set_level("INFO", logger="fabric")
    caplog.clear()
    for count in (0, 2, 2, 3, 0, 0):
        bench.tell(msgspec.structs.replace(servers[1].beat(), quarantined=count, garbage_bytes=4096 + count))
        node = bench.ask(GetStatus(1_000), ClusterStatus).nodes[1]
        assert (node.quarantined, node.garbage_bytes) == (count, 4096 + count)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "server chunk-2 reports damaged fragments, until they are repaired: 2"),
        ("INFO", "server chunk-2 has no damaged fragments any more"),
    ]


def test_wall_clock_time_is_only_on_objects() -> None:
    bench, _ = writable_bench(replicas=1)
    bench.now = 3.0
    info = bench.commit(PutOperation("a", [])).results[0]
    assert info is not None
    assert info.created_at_ms == 1_000_003_000


def test_the_master_asks_to_be_woken_for_leases_and_upkeep_only() -> None:
    bench = MasterBench()
    assert bench.role.next_deadline() is None
    bench.heartbeat(Server("chunk-1"))
    bench.tick(1.0)  # events are stored
    assert bench.role.next_deadline() == 4.0
    bench.tick(5.0)
    assert bench.role.next_deadline() is None
    bench.commit(PutOperation("a", []))
    assert bench.role.next_deadline() == 5.0 + 15 * 60


def test_a_damaged_value_ends_the_master_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = MasterBench()
    monkeypatch.setattr(bench.store, "get", _damaged)
    effects = bench.role.receive(Stat(1_000, "a"), Sender(b"client", 1), 0.0)
    assert [type(effect) for effect in effects] == [Exit]
    assert "flipped" in effects[0].reason  # type: ignore[union-attr]
    assert bench.role.start(0.0) == [Exit("the master's store cannot be read: a flipped byte")]


def _damaged(key: bytes) -> bytes | None:
    raise StoreDamaged("a flipped byte")


def test_fid_leases_wait_for_the_store_together_with_commits() -> None:
    bench, _ = writable_bench(replicas=1)
    bench.hold = True
    bench.tell(bench.commit_message(PutOperation("a", [])))
    bench.tell(LeaseFids(1_000, "p", 5))
    bench.tell(bench.commit_message(PutOperation("b", [])))
    assert len(bench.held) == 1
    bench.write_held()
    assert len(bench.held) == 1
    kinds = [type(e.message) for e in bench.write_held() if isinstance(e, Reply)]
    assert kinds[0] is FidLease
    assert len(kinds) == 2
