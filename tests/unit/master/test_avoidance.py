"""Groups that new fragments avoid for a while, because writes to a member fail."""

from __future__ import annotations

import pytest

from fabric.master.avoidance import Avoidance
from fabric.wire.messages import Noted, ReportFailure
from tests.unit.master.bench import MasterBench, Server, topologies
from tests.unit.master.order_bench import beat, drain, events_of, group_status, stored_group, sync, view_of


def two_groups() -> tuple[MasterBench, tuple[Server, ...]]:
    bench = MasterBench(replicas=2)
    servers = tuple(Server(f"chunk-{n}") for n in range(1, 5))
    beat(bench, *servers)
    sync(bench, *servers)
    assert view_of(bench, 1).writable
    assert view_of(bench, 2).writable
    return bench, servers


def report(bench: MasterBench, server: str, times: int = 3, code: str = "DEADLINE") -> None:
    for _ in range(times):
        bench.ask(ReportFailure(1_000, "proxy-1", server, 1, 5, code, "timeout"), Noted)


def writable(bench: MasterBench) -> list[bool]:
    return [view_of(bench, 1).writable, view_of(bench, 2).writable]


def live(bench: MasterBench, servers: tuple[Server, ...], until: float) -> None:
    while bench.now + 1.0 <= until:
        bench.tick(bench.now + 1.0)
        beat(bench, *servers)


def test_three_reports_make_a_group_avoided_for_some_seconds_and_no_epoch_changes() -> None:
    bench, servers = two_groups()
    told = events_of(bench)
    epochs = stored_group(bench, 1).epoch, stored_group(bench, 2).epoch
    report(bench, "chunk-1", 2)
    assert writable(bench) == [True, True]
    report(bench, "chunk-1", 1, "DISK_FAILED")
    assert writable(bench) == [False, True]
    status = group_status(bench, 1)
    reason = "avoided for 5 s: writes to chunk-1 fail (DISK_FAILED)"
    assert (status.state, status.reason) == ("WRITABLE", reason)
    assert told == [("group", "group 1", reason)]
    live(bench, servers, 4.0)
    assert writable(bench) == [False, True]
    assert {server.mode for server in servers} == {"RW"}
    assert [view.groups[0].writable for view in topologies(bench.tick(5.0))] == [True]
    assert writable(bench) == [True, True]
    assert group_status(bench, 1).reason == ""
    assert (stored_group(bench, 1).epoch, stored_group(bench, 2).epoch) == epochs


@pytest.mark.parametrize("code", ["STALE_EPOCH", "NOT_WRITABLE", "BUSY", "CONFLICT"])
def test_what_does_not_speak_against_the_server_does_not_count(code: str) -> None:
    bench, _ = two_groups()
    report(bench, "chunk-1", 9, code)
    assert writable(bench) == [True, True]


def test_reports_of_several_servers_do_not_add_up() -> None:
    bench, _ = two_groups()
    report(bench, "chunk-1", 2)
    report(bench, "chunk-2", 2)
    report(bench, "nobody", 9)
    assert writable(bench) == [True, True]


def test_a_group_is_not_avoided_when_no_other_is_writable() -> None:
    bench, servers = two_groups()
    report(bench, "chunk-1")
    assert writable(bench) == [False, True]
    report(bench, "chunk-3")
    assert writable(bench) == [True, True]
    live(bench, servers, 6.0)
    report(bench, "chunk-1")
    drain(bench, 2)
    assert writable(bench) == [True, False]
    drain(bench, 2, draining=False)
    assert writable(bench) == [False, True]


def test_the_loss_of_the_other_group_is_published_with_this_one_writable() -> None:
    bench, servers = two_groups()
    live(bench, servers, 3.0)
    report(bench, "chunk-1")
    beat(bench, servers[0], servers[1])
    servers[2].read_only_reason = "disk failed"
    views = topologies(bench.heartbeat(servers[2]))
    assert [group.writable for group in views[-1].groups] == [True, False]


def test_a_group_whose_members_begin_anew_is_not_avoided() -> None:
    bench, servers = two_groups()
    report(bench, "chunk-1")
    servers[0].restart()
    beat(bench, *servers)
    sync(bench, *servers)
    assert writable(bench) == [True, True]


def test_reports_that_come_back_double_the_pause_up_to_a_minute() -> None:
    avoidance, now, pauses = Avoidance(), 100.0, []
    for _ in range(6):
        for _ in range(3):
            avoidance.on_report("chunk-1", 1, "DEADLINE", now)
        ends_at = avoidance.next_deadline()
        assert ends_at is not None
        pauses.append(ends_at - now)
        assert avoidance.on_report("chunk-1", 1, "DEADLINE", now + 1.0) is False
        assert avoidance.on_tick(ends_at - 0.1) == []
        assert avoidance.on_tick(ends_at) == [1]
        assert avoidance.next_deadline() is None
        now = ends_at + 2.0
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    now += 100.0
    for _ in range(3):
        avoidance.on_report("chunk-1", 1, "DEADLINE", now)
    assert avoidance.next_deadline() == now + 5.0, "after a quiet time it begins small"


def test_reports_that_lie_apart_do_not_count() -> None:
    avoidance = Avoidance()
    assert [avoidance.on_report("chunk-1", 1, "DEADLINE", now) for now in (0.0, 5.0, 11.0, 15.9, 20.0)] == [
        False,
        False,
        False,
        False,
        True,
    ]
