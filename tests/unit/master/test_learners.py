"""Servers that copy a group to become members, and members that are replaced."""

from __future__ import annotations

import pytest

from fabric.node.effects import Sender
from fabric.settings import MIB
from fabric.wire.messages import Assignment, DeleteOperation, Member, PutOperation
from tests.unit.master.bench import (
    MasterBench,
    Server,
    assignments,
    deliver,
    fragment,
    route,
    topologies,
    writable_bench,
)
from tests.unit.master.order_bench import (
    beat,
    cancel,
    drain,
    events_of,
    group_status,
    groups_of,
    join,
    node_status,
    order,
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


def test_a_learner_copies_while_the_members_take_writes(cluster: Cluster) -> None:
    bench, servers, _extra = cluster
    epoch = stored_group(bench).epoch
    told = assignments(join(bench, "chunk-4", "chunk-3"))

    members = [Member(server.name, f"tcp://{server.name}:7410") for server in servers]
    assert told == {"chunk-4": Assignment(1, 1, epoch, "SYNC", members, [], 4_000)}
    beat(bench, *servers)
    assert {server.mode for server in servers} == {"RW"}
    assert stored_group(bench).epoch == epoch, "no epoch was raised for it"
    assert stored_group(bench).learners == {"chunk-4": "chunk-3"}
    assert view_of(bench).writable
    assert view_of(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    status = group_status(bench)
    assert (status.state, status.learners, status.members) == (
        "WRITABLE",
        ["chunk-4"],
        view_of(bench).members,
    )
    assert node_status(bench, "chunk-4").state == "SYNCING"
    assert node_status(bench, "chunk-4").reason == "copies group 1, to be a member in the place of chunk-3"


def test_a_learner_that_is_synced_takes_the_place_and_the_group_is_writable_again(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    epoch = stored_group(bench).epoch
    told = events_of(bench)
    extra.synced_digest = b"nearly equal"
    effects = bench.heartbeat(extra)
    deliver(effects, *servers)

    record = stored_group(bench)
    assert (record.epoch, record.members, record.learners) == (
        epoch + 1,
        ["chunk-1", "chunk-2", "chunk-4"],
        {},
    )
    modes = {name: a.mode for name, a in assignments(effects).items()}
    assert modes == {"chunk-1": "SYNC", "chunk-2": "SYNC", "chunk-4": "SYNC", "chunk-3": "WAIT"}
    assert not view_of(bench).writable
    assert groups_of(bench).joined("chunk-4", 1) is False
    sync(bench, servers[0], servers[1], extra)
    assert [server.mode for server in (servers[0], servers[1], extra)] == ["RW"] * 3
    assert stored_group(bench).replicas == 3
    assert groups_of(bench).joined("chunk-4", 1) is True
    assert ("group", "group 1", "chunk-4 becomes a member in the place of chunk-3, which is retired") in told


def test_a_learner_that_is_not_synced_is_not_promoted(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    for _ in range(3):
        beat(bench, *servers, extra)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert view_of(bench).writable
    assert groups_of(bench).joined("chunk-4", 1) is False


@pytest.mark.parametrize("wrong", ["epoch", "term"])
def test_what_a_learner_was_in_another_epoch_does_not_count(cluster: Cluster, wrong: str) -> None:
    bench, _servers, extra = replacing(cluster)
    extra.synced_digest = b"equal"
    setattr(extra, wrong, getattr(extra, wrong) - 1)
    bench.tell(extra.beat(), Sender(route(extra.name), 1))
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert view_of(bench).writable


def test_a_learner_is_not_promoted_while_another_member_is_dead(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    bench.tick(3.0)
    beat(bench, servers[0], servers[2], extra)
    bench.tick(4.5)  # chunk-2 is lost; its death has raised the epoch
    beat(bench, servers[0], servers[2], extra)
    extra.synced_digest = b"equal"
    beat(bench, extra)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert group_status(bench).reason == "not alive: chunk-2"


def test_a_learner_of_a_lost_member_is_promoted_at_once(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    bench.tick(3.0)
    beat(bench, *servers[:2], extra)
    bench.tick(4.5)
    record = stored_group(bench)
    assert record.members == ["chunk-1", "chunk-2", "chunk-4"]
    beat(bench, *servers[:2], extra)
    assert [server.mode for server in (*servers[:2], extra)] == ["SYNC"] * 3


def test_a_member_not_yet_heard_of_after_the_masters_start_is_not_replaced_as_if_lost(
    cluster: Cluster,
) -> None:
    bench, servers, extra = replacing(cluster)
    bench.restart()
    beat(bench, *servers[:2], extra)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    assert node_status(bench, "chunk-3").state == "INIT"
    bench.tick(3.0)
    beat(bench, *servers[:2], extra)
    bench.tick(4.5)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-4"]


def test_the_last_good_copy_is_not_let_go_however_lost_it_is(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    bench.tick(10.0)  # all are lost
    servers[0].restart(uuid="new disk")
    servers[1].restart(uuid="another new disk")
    beat(bench, *servers[:2], extra)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]
    servers[2].restart()
    beat(bench, *servers, extra)
    assert {server.mode for server in servers} == {"SYNC"}


def test_a_read_only_learner_is_not_promoted(cluster: Cluster) -> None:
    bench, _servers, extra = replacing(cluster)
    extra.synced_digest, extra.read_only_reason = b"equal", "disk nearly full"
    beat(bench, extra)
    assert (extra.mode, view_of(bench).writable) == ("RO", True)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-3"]


def test_a_read_only_member_is_replaced(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    servers[2].read_only_reason = "disk failed"
    beat(bench, *servers, extra)
    assert group_status(bench).state == "SEALED"
    sync(bench, servers[0], servers[1], extra)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-4"]
    sync(bench, servers[0], servers[1], extra)
    assert group_status(bench).state == "WRITABLE"


def test_a_server_that_joins_beside_makes_one_replica_more(cluster: Cluster) -> None:
    bench, servers, extra = cluster
    assert groups_of(bench).check_join("chunk-4", 1, "")[-1] == "group 1 has 4 replicas from then on"
    deliver(join(bench, "chunk-4"), extra)
    extra.synced_digest = b"equal"
    beat(bench, extra, to=servers)
    sync(bench, *servers, extra)
    record = stored_group(bench)
    assert (record.replicas, record.members) == (4, ["chunk-1", "chunk-2", "chunk-3", "chunk-4"])
    assert group_status(bench).state == "WRITABLE"


def test_a_learner_survives_the_master(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    bench.restart()
    beat(bench, extra)
    assert extra.mode == "SYNC"
    beat(bench, *servers)
    assert groups_of(bench).joined("chunk-4", 1) is False
    sync(bench, *servers, extra)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-4"]


def test_a_learner_is_durable_before_it_is_told(cluster: Cluster) -> None:
    bench, _servers, extra = cluster
    bench.hold = True
    join(bench, "chunk-4", "chunk-3")
    beat(bench, extra)
    assert extra.mode == "WAIT"
    deliver(bench.write_held(), extra)
    assert extra.mode == "SYNC"


# --- deletes -----------------------------------------------------------------------------------------


def test_a_learner_gets_the_deletes_that_wait_and_those_that_come(cluster: Cluster) -> None:
    bench, servers, extra = cluster
    bench.lease()
    bench.commit(PutOperation("a", [fragment(1)]), PutOperation("b", [fragment(2)]))
    bench.commit(DeleteOperation("a"))
    for _ in range(20):
        bench.tick(bench.now + 2.0)
        beat(bench, *servers, extra)
    assert servers[0].deletes == [1]
    deliver(join(bench, "chunk-4", "chunk-3"), extra)
    assert extra.deletes == [1]
    bench.commit(DeleteOperation("b"))
    for _ in range(20):
        bench.tick(bench.now + 2.0)
        beat(bench, *servers, extra)
    assert extra.deletes == [1, 2]
    assert node_status(bench, "chunk-4").pending_deletes == 2


def test_a_learner_with_a_new_directory_waits_until_it_has_the_deletes_of_the_members(
    cluster: Cluster,
) -> None:
    bench, servers, extra = replacing(cluster)
    bench.lease()
    bench.commit(PutOperation("a", [fragment(1)]))
    bench.commit(DeleteOperation("a"))
    for _ in range(20):
        bench.tick(bench.now + 2.0)
        beat(bench, *servers, extra)
    extra.deleted = extra.deletes
    beat(bench, extra)
    assert node_status(bench, "chunk-4").pending_deletes == 0
    for _ in range(5):
        bench.tick(bench.now + 1.0)
        beat(bench, *servers)
    extra.restart(uuid="new disk")
    extra.deleted, extra.synced_digest = [], b"before it was told anything"
    bench.hold = True
    beat(bench, extra)
    assert extra.mode == "WAIT"
    assert stored_group(bench).learners == {"chunk-4": "chunk-3"}
    bench.hold = False
    deliver(bench.write_held(), extra)
    assert (extra.mode, extra.deletes) == ("SYNC", [1])


def test_a_learner_with_more_to_delete_than_one_assignment_holds_waits(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("deletion", "standings"):
        monkeypatch.setattr(f"fabric.master.{module}.DELETES_PER_ASSIGNMENT", 2)
    bench, servers, extra = replacing(cluster)
    bench.lease()
    bench.commit(PutOperation("a", [fragment(1), fragment(2), fragment(3)]))
    bench.commit(DeleteOperation("a"))
    for _ in range(20):
        bench.tick(bench.now + 2.0)
        beat(bench, *servers, extra)
    assert (extra.mode, extra.deletes) == ("WAIT", [1, 2])
    extra.deleted = [1, 2]
    for _ in range(2):
        beat(bench, extra)
    assert (extra.mode, extra.deletes) == ("SYNC", [3])


def test_what_a_retired_server_had_to_delete_is_forgotten(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    bench.lease()
    bench.commit(PutOperation("a", [fragment(1)]))
    bench.commit(DeleteOperation("a"))
    for _ in range(20):
        bench.tick(bench.now + 2.0)
        beat(bench, *servers, extra)
    assert bench.role._deletion.total() == 4
    extra.synced_digest = b"equal"
    beat(bench, extra, to=servers)
    assert node_status(bench, "chunk-3").pending_deletes == 0
    assert bench.role._deletion.total() == 3
    bench.restart()
    assert bench.role._deletion.total() == 3


# --- servers that were never seen --------------------------------------------------------------------


def test_a_server_can_be_named_before_it_is_seen() -> None:
    bench, servers = writable_bench()
    assert (
        groups_of(bench).check_join("later", 1, "chunk-3")[0] == "later is not here: it joins when it appears"
    )
    join(bench, "later", "chunk-3")
    assert view_of(bench).writable
    assert node_status(bench, "later").reason == "never seen yet: it joins its group when it appears"
    bench.restart()
    beat(bench, *servers)
    later = Server("later", group=7)
    beat(bench, later)
    assert later.mode == "SYNC", "the operator's word counts, not the group that it was started for"
    sync(bench, *servers, later)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "later"]


def test_a_server_named_and_never_seen_makes_no_noise_and_goes_when_cancelled() -> None:
    bench, servers = writable_bench()
    join(bench, "later", "chunk-3")
    bench.restart()
    told = events_of(bench)
    beat(bench, *servers)
    sync(bench, *servers)
    bench.tick(3.0)
    beat(bench, *servers)
    bench.tick(6.0)
    assert [event for event in told if event[1] == "later"] == []
    cancel(bench, "later")
    assert stored_node(bench, "later") is None
    assert "later" not in groups_of(bench)._membership.nodes
    assert view_of(bench).writable


# --- refusals ----------------------------------------------------------------------------------------


def test_impossible_joins_are_refused_with_what_to_do(cluster: Cluster) -> None:
    bench, servers, extra = cluster
    groups = groups_of(bench)

    def why(server: str, group: int, replaces: str) -> str:
        return refusal(lambda: groups.check_join(server, group, replaces))

    assert why("chunk-4", 9, "") == "there is no group 9; known groups: 1"
    assert "its members are chunk-1, chunk-2, chunk-3" in why("chunk-4", 1, "chunk-9")
    assert "belongs to group 1 already" in why("chunk-1", 1, "chunk-3")
    assert "its own place" in why("chunk-1", 1, "chunk-1")
    extra.read_only_reason = "disk failed"
    beat(bench, extra)
    assert "read-only: disk failed" in why("chunk-4", 1, "chunk-3")
    extra.read_only_reason, extra.free_bytes = "", 2047 * MIB
    servers[0].live_bytes = 2048 * MIB
    beat(bench, extra, *servers)
    assert why("chunk-4", 1, "chunk-3") == "chunk-4 has room for 2,047.0 MiB; group 1 holds 2,048.0 MiB"
    extra.free_bytes = 2048 * MIB
    beat(bench, extra)
    join(bench, "chunk-4", "chunk-3")
    assert groups.check_join("chunk-4", 1, "chunk-3") == ["chunk-4 joins group 1 already"]
    assert "belongs to group 1 already" in why("chunk-4", 1, "chunk-2")
    assert "chunk-4 is taking the place of chunk-3" in why("chunk-5", 1, "chunk-3")
    drain(bench)
    assert "is draining" in why("chunk-5", 1, "")


def test_joining_twice_changes_nothing(cluster: Cluster) -> None:
    bench, _servers, _extra = replacing(cluster)
    writes = bench.store.writes  # type: ignore[attr-defined]
    assert join(bench, "chunk-4", "chunk-3") == []
    assert bench.store.writes == writes  # type: ignore[attr-defined]


def test_progress_is_what_heartbeats_say(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    servers[1].live_bytes, extra.live_bytes = 1000, 250
    beat(bench, *servers, extra)
    assert groups_of(bench).progress("chunk-4") == (250, 1000)
    assert groups_of(bench).progress("nobody") == (0, 0)


def test_no_view_shows_a_learner(cluster: Cluster) -> None:
    bench, _servers, extra = cluster
    effects = join(bench, "chunk-4", "chunk-3")
    effects += bench.heartbeat(extra)
    assert topologies(effects) == []


def test_all_directories_new_is_noticed_although_a_learner_has_data(cluster: Cluster) -> None:
    bench, servers, extra = replacing(cluster)
    text = refusal(lambda: order(bench, lambda groups, delta: groups.accept_loss(delta, 1)))
    assert text == "group 1 has not lost all of its data directories: WRITABLE"
    bench.tick(10.0)
    for server in servers:
        server.restart(uuid=f"new directory of {server.name}")
    beat(bench, *servers, extra)
    assert "every member has a new data directory" in group_status(bench).reason
    deliver(order(bench, lambda groups, delta: groups.accept_loss(delta, 1)), *servers)
    assert [server.mode for server in servers] == ["SYNC"] * 3
    sync(bench, *servers)
    assert group_status(bench).state == "WRITABLE"
