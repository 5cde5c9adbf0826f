"""Servers that leave a group, and what becomes of their data directories."""

from __future__ import annotations

import pytest

from fabric.wire.messages import Failed
from tests.unit.master.bench import MasterBench, Server, deliver, writable_bench
from tests.unit.master.order_bench import (
    beat,
    cancel,
    groups_of,
    join,
    node_status,
    refusal,
    stored_group,
    stored_node,
    sync,
    view_of,
)

Cluster = tuple[MasterBench, tuple[Server, ...], Server]


@pytest.fixture
def cluster() -> Cluster:
    """Group 1 with three members that are writable, and a server that waits outside."""
    bench, servers = writable_bench()
    extra = Server("chunk-4", group=1)
    beat(bench, extra)
    return bench, servers, extra


def replacing(cluster: Cluster, replaced: str = "chunk-3") -> Cluster:
    bench, _servers, extra = cluster
    deliver(join(bench, extra.name, replaced), extra)
    return cluster


def retired(cluster: Cluster) -> Cluster:
    bench, servers, extra = replacing(cluster)
    extra.synced_digest = b"equal"
    beat(bench, extra, to=servers)
    sync(bench, servers[0], servers[1], extra)
    return cluster


@pytest.mark.parametrize("restart_master", [False, True])
def test_a_retired_directory_is_not_placed_again(cluster: Cluster, restart_master: bool) -> None:
    bench, servers, _extra = retired(cluster)
    if restart_master:
        bench.restart()
    servers[2].restart()
    servers[2].group = 0
    beat(bench, servers[2])
    assert servers[2].mode == "WAIT"
    status = node_status(bench, "chunk-3")
    assert (status.group, status.state) == (0, "INIT")
    assert status.reason == "retired from group 1: stop it, wipe its data directory"
    text = refusal(lambda: groups_of(bench).check_join("chunk-3", 1, ""))
    assert "wipe the directory" in text
    assert groups_of(bench).spare(1) is None


def test_a_retired_server_with_an_empty_directory_is_a_new_server(cluster: Cluster) -> None:
    bench, servers, extra = retired(cluster)
    bench.tick(20.0)
    beat(bench, servers[0], servers[1], extra)
    servers[2].restart(uuid="wiped")
    servers[2].group = 0
    beat(bench, servers[2])
    assert node_status(bench, "chunk-3").group == 2, "placed by itself in the first group with room"
    bench.tick(30.0)
    servers[2].restart(uuid="uuid-of-chunk-3")
    answer = bench.ask(servers[2].beat(), Failed)
    assert answer.code == "REFUSED"
    assert "was retired" in answer.message


def test_a_retired_server_is_told_so_although_its_epoch_was_a_high_one(cluster: Cluster) -> None:
    bench, servers, _extra = retired(cluster)
    beat(bench, servers[2])
    assert servers[2].mode == "WAIT"
    assert servers[2].epoch > 0


def test_a_lost_member_that_was_replaced_comes_back_retired(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    bench.tick(3.0)
    beat(bench, *servers[:2], extra)
    bench.tick(4.5)
    beat(bench, servers[2])
    assert servers[2].mode == "WAIT"
    assert node_status(bench, "chunk-3").group == 0
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-4"]


def test_both_directories_of_a_member_are_retired(cluster: Cluster) -> None:
    """It came back with a new one and was lost again; the old one may turn up yet."""
    bench, servers, extra = cluster
    for now, uuid in ((10.0, "new disk"), (20.0, "")):
        for moment in (now - 5.0, now - 2.0, now):
            bench.tick(moment)
            beat(bench, *servers[:2], extra)
        if uuid:
            servers[2].restart(uuid=uuid)
            beat(bench, servers[2], to=servers)
    join(bench, "chunk-4", "chunk-3")
    record = stored_node(bench, "chunk-3")
    assert record is not None
    assert (record.group, record.retired_from) == (0, 1)
    assert set(record.retired_uuids) == {"new disk", "uuid-of-chunk-3"}
    bench.tick(30.0)
    servers[2].restart(uuid="uuid-of-chunk-3")
    beat(bench, servers[2])
    assert (servers[2].mode, node_status(bench, "chunk-3").group) == ("WAIT", 0)


# --- cancelling --------------------------------------------------------------------------------------


def test_a_cancelled_learner_leaves_and_its_directory_is_retired(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    deliver(cancel(bench, "chunk-4"), extra)
    assert (extra.mode, stored_group(bench).learners) == ("WAIT", {})
    assert groups_of(bench).joined("chunk-4", 1) is None
    extra.synced_digest = b"equal"
    beat(bench, *servers, extra)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert view_of(bench).writable
    assert "retired" in node_status(bench, "chunk-4").reason


def test_a_member_cannot_be_cancelled(cluster: Cluster) -> None:
    bench, _servers, _extra = cluster
    assert "is a member of group 1" in refusal(lambda: cancel(bench, "chunk-1"))
    assert "is not joining" in refusal(lambda: cancel(bench, "chunk-4"))
    assert "is not joining" in refusal(lambda: cancel(bench, "nobody"))


def test_a_learner_cancelled_while_its_promotion_is_due_is_not_promoted(cluster: Cluster) -> None:
    bench, _servers, extra = replacing(cluster)
    bench.hold = True
    cancel(bench, "chunk-4")
    extra.synced_digest = b"equal"
    bench.heartbeat(extra)
    bench.hold = False
    bench.write_held()
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
