"""Groups that an operator adds and drains, and servers that join a group that holds nothing yet."""

from __future__ import annotations

import pytest

from fabric.errors import BadRequest
from tests.unit.master.bench import MasterBench, Server, assignments, deliver, topologies, writable_bench
from tests.unit.master.order_bench import (
    add_group,
    beat,
    cancel,
    drain,
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

# --- groups ------------------------------------------------------------------------------------------


def test_a_group_is_added_empty_and_takes_the_next_servers() -> None:
    bench, _ = writable_bench()
    assert add_group(bench, 0, 2) == 2
    assert (stored_group(bench, 2).members, stored_group(bench, 2).replicas) == ([], 2)
    assert group_status(bench, 2).state == "FORMING"
    assert not view_of(bench, 2).writable
    assert add_group(bench) == 2, "repeating it adds no other"
    bench.restart()
    new = Server("chunk-4"), Server("chunk-5")
    beat(bench, *new)
    sync(bench, *new)
    assert view_of(bench, 2).writable
    assert add_group(bench) == 3


def test_a_group_can_be_given_its_number_and_only_one_number_of_replicas() -> None:
    bench, _ = writable_bench()
    assert add_group(bench, 7, 2) == 7
    assert groups_of(bench).plan_group(7, 0)[1] is False
    assert "with 2 replicas" in refusal(lambda: groups_of(bench).plan_group(7, 3))
    with pytest.raises(BadRequest):
        groups_of(bench).plan_group(8, 17)


def test_planning_changes_nothing() -> None:
    bench, _ = writable_bench()
    group, changed = groups_of(bench).plan_group(0, 0)
    assert (group.group, group.replicas, changed) == (2, 3, True)
    assert list(groups_of(bench).groups) == [1]


# --- draining ----------------------------------------------------------------------------------------


def test_a_draining_group_takes_no_new_fragments_and_its_members_stay_rw() -> None:
    bench, servers = writable_bench()
    epoch = stored_group(bench).epoch
    effects = drain(bench)
    assert [view.writable for view in topologies(effects)[-1].groups] == [False]
    beat(bench, *servers)
    assert {(server.mode, server.epoch) for server in servers} == {("RW", epoch)}
    status = group_status(bench)
    assert (status.state, status.draining) == ("WRITABLE", True)
    assert status.reason == "draining: it takes no new fragments"

    bench.restart()
    beat(bench, *servers)
    sync(bench, *servers)
    assert {server.mode for server in servers} == {"RW"}
    assert not view_of(bench).writable
    drain(bench, draining=False)
    assert view_of(bench).writable
    assert group_status(bench).draining is False


def test_draining_is_said_once_and_survives_other_changes() -> None:
    bench, servers = writable_bench()
    told = events_of(bench)
    drain(bench)
    writes = bench.store.writes  # type: ignore[attr-defined]
    servers[0].restart()
    beat(bench, *servers)
    join(bench, "chunk-4", "chunk-3")
    assert stored_group(bench).draining
    assert bench.store.writes > writes  # type: ignore[attr-defined]
    assert told[0] == ("group", "group 1", "takes no new fragments")
    assert "no group 9" in refusal(lambda: drain(bench, 9))


def test_draining_ordered_while_an_epoch_is_on_its_way_loses_neither() -> None:
    bench, servers = writable_bench()
    epoch = stored_group(bench).epoch
    bench.hold = True
    bench.tell(bench.commit_message())  # keeps the store busy: what follows is one batch
    servers[0].restart()
    bench.heartbeat(servers[0])
    drain(bench)
    bench.hold = False
    bench.write_held()
    assert (stored_group(bench).epoch, stored_group(bench).draining) == (epoch + 1, True)


# --- joining what holds nothing ----------------------------------------------------------------------


def forming() -> tuple[MasterBench, tuple[Server, ...], tuple[Server, Server]]:
    """A writable group 1, and group 2 with two of three members."""
    bench, servers = writable_bench()
    others = Server("chunk-4"), Server("chunk-5")
    beat(bench, *others)
    assert group_status(bench, 2).state == "FORMING"
    return bench, servers, others


def test_a_member_of_a_group_that_was_never_writable_can_join_another() -> None:
    bench, servers, others = forming()
    deliver(join(bench, "chunk-4", "chunk-3"), *others, *servers)
    assert stored_group(bench, 2).members == ["chunk-5"]
    assert stored_group(bench, 1).learners == {"chunk-4": "chunk-3"}
    assert node_status(bench, "chunk-4").group == 1
    bench.restart()
    beat(bench, *servers, *others)
    assert others[0].mode == "SYNC"
    sync(bench, *servers, *others)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-4"]


def test_a_server_that_has_obeyed_a_higher_epoch_elsewhere_is_not_lost_to_the_group() -> None:
    bench, servers, others = forming()
    for _ in range(9):
        others[0].restart()
        beat(bench, *others)
    assert others[0].epoch > stored_group(bench, 1).epoch
    deliver(join(bench, "chunk-4", "chunk-3"), *others, *servers)
    for _ in range(2):
        beat(bench, *servers, *others)
    assert others[0].mode == "SYNC"
    assert others[0].epoch == stored_group(bench, 1).epoch
    sync(bench, *servers, *others)
    sync(bench, *servers, *others)
    assert stored_group(bench).members == ["chunk-1", "chunk-2", "chunk-4"]
    assert group_status(bench).state == "WRITABLE"


def test_a_server_joins_a_forming_group_as_a_member_at_once() -> None:
    bench, _servers, others = forming()
    extra = Server("chunk-6", group=1)
    beat(bench, extra)
    deliver(join(bench, "chunk-6", group=2), *others, extra)
    assert stored_group(bench, 2).members == ["chunk-4", "chunk-5", "chunk-6"]
    beat(bench, *others, extra)
    assert groups_of(bench).joined("chunk-6", 2) is False
    sync(bench, *others, extra)
    assert groups_of(bench).joined("chunk-6", 2) is True
    assert stored_group(bench, 2).replicas == 3


def test_in_a_forming_group_a_server_takes_anothers_place_at_once() -> None:
    bench, _servers, others = forming()
    told = assignments(join(bench, "chunk-6", "chunk-5", group=2))
    assert stored_group(bench, 2).members == ["chunk-4", "chunk-6"]
    assert told["chunk-4"].members[0].server == "chunk-4"
    assert len(told["chunk-4"].members) == 1, "nobody is sent to a server whose address is not known"
    assert node_status(bench, "chunk-5").group == 0
    bench.restart()
    assert stored_group(bench, 2).members == ["chunk-4", "chunk-6"]
    cancel(bench, "chunk-6")
    assert stored_group(bench, 2).members == ["chunk-4"]
    beat(bench, *others)
    assert group_status(bench, 2).members == ["chunk-4", "chunk-5"]


@pytest.mark.parametrize("join_first", [False, True])
def test_a_join_in_one_batch_with_the_first_writable_epoch(join_first: bool) -> None:
    bench = MasterBench(replicas=2)
    servers = Server("chunk-1"), Server("chunk-2")
    beat(bench, *servers)
    bench.hold = True
    bench.tell(bench.commit_message())  # keeps the store busy: what follows is one batch
    if join_first:
        join(bench, "chunk-3", "chunk-2")
    for server in servers:
        server.synced_digest = b"equal"
        bench.heartbeat(server)
    if not join_first:
        join(bench, "chunk-3", "chunk-2")
    effects = []
    while bench.held:
        effects += bench.write_held()
    record, modes = stored_group(bench), {name: a.mode for name, a in assignments(effects).items()}
    if join_first:
        assert (record.members, record.writable_uuids) == (["chunk-1", "chunk-3"], {})
        assert "RW" not in modes.values()
    else:
        assert (record.members, record.learners) == (["chunk-1", "chunk-2"], {"chunk-3": "chunk-2"})
        assert modes == {"chunk-1": "RW", "chunk-2": "RW"}


def test_an_epoch_that_was_due_for_other_members_does_not_open_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All were equal, and before the epoch for that was begun a third took the place of one of them."""
    monkeypatch.setattr("fabric.master.journal.CHANGES_PER_BATCH_MAX", 1)
    bench = MasterBench(replicas=2)
    servers = Server("chunk-1"), Server("chunk-2"), Server("chunk-3", group=1)
    beat(bench, *servers)
    bench.hold = True
    bench.tell(bench.commit_message())  # keeps the store busy
    join(bench, "chunk-3", "chunk-2")
    for server in servers[:2]:
        server.synced_digest = b"equal"
        bench.heartbeat(server)
    effects = []
    while bench.held:
        effects += bench.write_held()
    assert stored_group(bench).members == ["chunk-1", "chunk-3"]
    assert "RW" not in {assignment.mode for assignment in assignments(effects).values()}
    assert stored_group(bench).writable_uuids == {}


def test_the_spare_is_one_that_could_join_and_has_no_group() -> None:
    bench, servers, others = forming()
    groups = groups_of(bench)
    assert groups.spare(1) in ("chunk-4", "chunk-5")
    free = Server("chunk-6", group=1), Server("chunk-7", group=1, free_bytes=5)
    beat(bench, *free)
    assert groups.spare(1) == "chunk-6"
    free[0].read_only_reason = "disk failed"
    beat(bench, *free)
    assert groups.spare(1) == "chunk-7"
    servers[0].live_bytes = 6
    beat(bench, *servers)
    assert groups.spare(1) in ("chunk-4", "chunk-5")
    bench.tick(20.0)
    assert groups.spare(1) is None
    beat(bench, others[0])
    assert groups.spare(1) == "chunk-4"
