"""Groups that go on without a lost member, if the operator lets them."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.master.bench import SETTINGS, MasterBench, Server, deliver, three_servers
from tests.unit.master.order_bench import (
    beat,
    cancel,
    events_of,
    group_status,
    groups_of,
    join,
    node_status,
    refusal,
    stored_group,
    sync,
    view_of,
)


def bench_of(min_write_replicas: int) -> tuple[MasterBench, tuple[Server, Server, Server]]:
    bench = MasterBench(settings=msgspec.structs.replace(SETTINGS, min_write_replicas=min_write_replicas))
    servers = three_servers()
    bench.make_writable(*servers)
    return bench, servers


def lose(bench: MasterBench, *living: Server) -> None:
    """Let a lease go by in which only these are heard."""
    for _ in range(5):
        bench.tick(bench.now + 1.0)
        beat(bench, *living)


def test_the_group_goes_on_without_a_lost_member() -> None:
    bench, servers = bench_of(2)
    told = events_of(bench)
    lose(bench, servers[0], servers[1])
    sync(bench, servers[0], servers[1])
    record = stored_group(bench)
    assert (record.members, record.learners, record.replicas) == (
        ["chunk-1", "chunk-2"],
        {"chunk-3": "chunk-3"},
        3,
    )
    assert view_of(bench).writable
    status = group_status(bench)
    assert (status.state, status.reason) == ("WRITABLE", "degraded: chunk-3 is away")
    assert node_status(bench, "chunk-3").state == "OFFLINE"
    assert ("group", "group 1", "goes on without chunk-3, lost: it learns when it is back") in told
    assert record.writable_uuids.keys() <= {"chunk-1", "chunk-2", "chunk-3"}
    assert set(stored_group(bench).writable_uuids) == {"chunk-1", "chunk-2"}


def test_by_default_it_waits() -> None:
    bench, servers = bench_of(0)
    lose(bench, servers[0], servers[1])
    assert group_status(bench).reason == "not alive: chunk-3"
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]


def test_never_more_are_lost_than_that() -> None:
    bench, servers = bench_of(2)
    lose(bench, servers[0])
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert group_status(bench).state == "SEALED"


def test_one_after_the_other_may_be_lost_as_long_as_enough_are_left() -> None:
    bench, servers = bench_of(1)
    lose(bench, servers[0], servers[1])
    sync(bench, servers[0], servers[1])
    lose(bench, servers[0])
    sync(bench, servers[0])
    assert stored_group(bench).members == ["chunk-1"]
    assert group_status(bench).reason == "degraded: chunk-3, chunk-2 are away"


def test_a_member_with_a_new_directory_does_not_count_as_one_that_is_left() -> None:
    bench, servers = bench_of(1)
    bench.tick(10.0)
    servers[2].restart(uuid="new disk")
    lose(bench, servers[2])
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert group_status(bench).reason == "not alive: chunk-1, chunk-2"
    servers[0].restart()
    lose(bench, servers[0], servers[2])
    assert stored_group(bench).members == ["chunk-1", "chunk-3"], "chunk-1 has all of the data"
    sync(bench, servers[0], servers[2])
    assert group_status(bench).state == "WRITABLE"


def test_the_lost_member_learns_when_it_is_back_and_takes_its_place() -> None:
    bench, servers = bench_of(2)
    lose(bench, servers[0], servers[1])
    sync(bench, servers[0], servers[1])
    servers[2].restart()
    epoch = stored_group(bench).epoch
    beat(bench, servers[2], to=servers)
    assert (servers[2].mode, servers[0].mode) == ("SYNC", "RW")
    assert stored_group(bench).epoch == epoch, "nobody is disturbed by its return"
    assert "was away" in node_status(bench, "chunk-3").reason
    sync(bench, *servers)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert (stored_group(bench).replicas, stored_group(bench).learners) == (3, {})
    assert group_status(bench).state == "WRITABLE"


@pytest.mark.parametrize("restart_master", [False, True])
def test_a_member_that_was_away_is_not_enough_when_those_that_went_on_are_gone(restart_master: bool) -> None:
    """Writes were acknowledged that it has not."""
    bench, servers = bench_of(1)
    lose(bench, servers[0], servers[1])
    sync(bench, servers[0], servers[1])
    if restart_master:
        bench.restart()
    servers[2].restart()
    lose(bench, servers[2])
    sync(bench, servers[2])
    assert servers[2].mode == "SYNC"
    assert stored_group(bench).members == ["chunk-1", "chunk-2"]
    assert group_status(bench).reason == "not alive: chunk-1, chunk-2"


def test_nobody_is_given_up_who_was_not_heard_of_since_the_masters_start() -> None:
    bench, servers = bench_of(1)
    bench.restart()
    beat(bench, servers[0], servers[1])
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    lose(bench, servers[0], servers[1])
    assert stored_group(bench).members == ["chunk-1", "chunk-2"]


def test_a_member_that_is_alive_is_never_given_up() -> None:
    bench, servers = bench_of(1)
    servers[2].read_only_reason = "disk failed"
    lose(bench, *servers)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert group_status(bench).state == "SEALED"


def test_a_group_that_was_never_writable_waits_for_all() -> None:
    bench = MasterBench(settings=msgspec.structs.replace(SETTINGS, min_write_replicas=1))
    servers = three_servers()
    beat(bench, *servers)
    lose(bench, servers[0], servers[1])
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]


def test_one_that_is_away_can_be_replaced_but_not_cancelled() -> None:
    bench, servers = bench_of(2)
    lose(bench, servers[0], servers[1])
    sync(bench, servers[0], servers[1])
    assert "put another server in its place" in refusal(lambda: cancel(bench, "chunk-3"))
    extra = Server("chunk-4", group=1)
    beat(bench, extra)
    deliver(join(bench, "chunk-4", "chunk-3"), extra)
    beat(bench, extra, to=servers)
    assert view_of(bench).writable, "it copies first: the group is not sealed"
    sync(bench, servers[0], servers[1], extra)
    record = stored_group(bench)
    assert (record.members, record.learners, record.replicas) == (["chunk-1", "chunk-2", "chunk-4"], {}, 3)
    assert node_status(bench, "chunk-3").group == 0
    assert groups_of(bench).joined("chunk-4", 1) is True
