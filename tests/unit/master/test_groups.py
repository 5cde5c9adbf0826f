"""The life of a group, and what its members are told in each step."""

from __future__ import annotations

import pytest

from fabric.master import keys
from fabric.master.records import decode_group
from fabric.node.effects import Publish, Reply, Sender
from fabric.wire.messages import (
    Assignment,
    ClusterStatus,
    GetStatus,
    GetTopology,
    GroupView,
    Member,
    NodeView,
    Topology,
)
from tests.unit.master.bench import (
    GIB,
    MasterBench,
    Server,
    assignments,
    deliver,
    route,
    three_servers,
    topologies,
    writable_bench,
)


def stored_epoch(bench: MasterBench, group: int = 1) -> int:
    value = bench.store.get(keys.group_key(group))
    return 0 if value is None else decode_group(value).epoch


def group_state(bench: MasterBench) -> tuple[str, str]:
    status = bench.ask(GetStatus(1_000), ClusterStatus)
    return status.groups[0].state, status.groups[0].reason


def modes(servers: tuple[Server, ...]) -> list[str]:
    return [server.mode for server in servers]


def test_three_members_walk_from_forming_over_syncing_to_writable() -> None:
    bench, servers = MasterBench(), three_servers()
    for server in servers[:2]:
        deliver(bench.heartbeat(server), *servers)
    assert modes(servers) == ["WAIT", "WAIT", ""]
    assert group_state(bench) == ("FORMING", "2 of 3 members have registered")

    deliver(bench.heartbeat(servers[2]), *servers)
    assert modes(servers) == ["SYNC", "SYNC", "SYNC"]
    assert group_state(bench)[0] == "SYNCING"

    for server in servers:
        server.synced_digest = b"equal"
    for server in servers[:2]:
        deliver(bench.heartbeat(server), *servers)
    assert modes(servers) == ["SYNC", "SYNC", "SYNC"]

    effects = bench.heartbeat(servers[2])
    members = [Member(server.name, f"tcp://{server.name}:7410") for server in servers]
    nodes = [NodeView(server.name, f"tcp://{server.name}:7410", 1, "RW") for server in servers]
    names = [server.name for server in servers]
    assert effects == [
        Reply(
            Sender(route("chunk-3"), 1),
            Assignment(1, 1, 3, "SYNC", members, [], 4_000),
        ),
        *[Reply(Sender(route(name), 0), Assignment(1, 1, 4, "RW", members, [], 4_000)) for name in names],
        Publish(Topology(1, effects[-1].message.sequence, nodes, [GroupView(1, 4, True, 100 * GIB, names)])),
    ]
    assert group_state(bench) == ("WRITABLE", "")


def test_unequal_digests_never_make_a_group_writable() -> None:
    bench, servers = MasterBench(), three_servers()
    for server in servers:
        deliver(bench.heartbeat(server), *servers)
    for server in servers:
        server.synced_digest = server.name.encode()
        deliver(bench.heartbeat(server), *servers)

    assert modes(servers) == ["SYNC"] * 3
    assert group_state(bench)[0] == "SYNCING"


def test_a_digest_of_an_older_epoch_does_not_count() -> None:
    bench, servers = writable_bench()
    servers[2].restart()
    deliver(bench.heartbeat(servers[2]), *servers)
    assert modes(servers) == ["SYNC"] * 3
    for server in servers:
        server.synced_digest = b"equal"
        server.epoch -= 1
        bench.tell(server.beat(), Sender(route(server.name), 1))

    assert group_state(bench)[0] == "SYNCING"


def test_an_epoch_is_durable_before_anybody_is_told() -> None:
    bench, servers = writable_bench()
    epoch = stored_epoch(bench)
    bench.hold = True
    servers[2].restart()

    effects = bench.heartbeat(servers[2])
    assert stored_epoch(bench) == epoch
    assert {a.epoch for a in assignments(effects).values()} == {epoch}
    assert {a.mode for a in assignments(effects).values()} == {"WAIT"}
    assert [group.epoch for topology in topologies(effects) for group in topology.groups] == [epoch]

    effects = bench.write_held()
    assert stored_epoch(bench) == epoch + 1
    told = assignments(effects)
    assert {name: (a.epoch, a.mode) for name, a in told.items()} == dict.fromkeys(
        ("chunk-1", "chunk-2", "chunk-3"), (epoch + 1, "SYNC")
    )


def test_while_the_seal_is_being_written_no_member_is_told_rw() -> None:
    bench, servers = writable_bench()
    bench.hold = True
    servers[2].restart()
    bench.heartbeat(servers[2])

    effects = bench.heartbeat(servers[0])
    assert assignments(effects)["chunk-1"].mode == "WAIT"


def test_a_member_lost_while_the_group_becomes_writable_leaves_it_sealed() -> None:
    bench, servers = MasterBench(), three_servers()
    for server in servers:
        deliver(bench.heartbeat(server), *servers)
    bench.hold = True
    for server in servers:
        server.synced_digest = b"equal"
        bench.heartbeat(server)
    assert len(bench.held) == 1, "the epoch in which the group is to be writable"
    servers[1].restart()
    bench.heartbeat(servers[1])

    effects = bench.write_held()
    assert "RW" not in {a.mode for a in assignments(effects).values()}
    assert not any(group.writable for topology in topologies(effects) for group in topology.groups)


def test_a_member_lost_before_the_writable_epoch_is_even_begun_leaves_it_sealed() -> None:
    bench, servers = MasterBench(), three_servers()
    for server in servers:
        deliver(bench.heartbeat(server), *servers)
    bench.hold = True
    bench.tell(bench.commit_message())  # keeps the store busy, so that the epoch has to wait
    for server in servers:
        server.synced_digest = b"equal"
        bench.heartbeat(server)
    servers[1].restart(uuid="")
    bench.heartbeat(servers[1])
    bench.hold = False

    effects = bench.write_held()
    assert {a.mode for a in assignments(effects).values()} == {"SYNC"}
    assert not any(group.writable for topology in topologies(effects) for group in topology.groups)
    value = bench.store.get(keys.group_key(1))
    assert value is not None
    assert decode_group(value).writable_uuids == {}


def test_a_silent_server_is_lost_exactly_once_and_its_peers_are_told() -> None:
    bench, servers = writable_bench()
    epoch = stored_epoch(bench)
    bench.tick(3.0)
    for server in servers[:2]:
        assert bench.heartbeat(server)
    assert bench.tick(3.9) == []

    effects = bench.tick(4.0)
    told = assignments(effects)
    assert {name: (a.epoch, a.mode) for name, a in told.items()} == {
        "chunk-1": (epoch + 1, "WAIT"),
        "chunk-2": (epoch + 1, "WAIT"),
    }
    last = topologies(effects)[-1]
    assert [node.state for node in last.nodes] == ["SYNCING", "SYNCING", "OFFLINE"]
    assert [(group.epoch, group.writable) for group in last.groups] == [(epoch + 1, False)]
    assert group_state(bench) == ("SEALED", "not alive: chunk-3")
    assert bench.tick(6.9) == []
    assert stored_epoch(bench) == epoch + 1


def test_a_heartbeat_that_comes_after_the_lease_is_a_return_even_if_no_tick_saw_it() -> None:
    bench, servers = writable_bench()
    epoch = stored_epoch(bench)
    bench.now = 4.5

    deliver(bench.heartbeat(servers[0]), *servers)
    assert stored_epoch(bench) > epoch
    assert servers[0].mode != "RW"


def test_a_restart_is_noticed_however_fast_it_is() -> None:
    bench, servers = writable_bench()
    epoch = stored_epoch(bench)
    servers[1].restart()

    deliver(bench.heartbeat(servers[1]), *servers)
    assert (stored_epoch(bench), modes(servers)) == (epoch + 1, ["SYNC"] * 3)


def test_a_heartbeat_that_says_nothing_new_writes_nothing() -> None:
    bench, servers = writable_bench()
    writes = bench.store.writes  # type: ignore[attr-defined]
    for now in (1.0, 2.0, 3.0):
        bench.now = now
        for server in servers:
            assert len(bench.heartbeat(server)) == 1
    assert bench.store.writes == writes  # type: ignore[attr-defined]


def test_a_read_only_member_seals_the_group_and_is_told_ro() -> None:
    bench, servers = writable_bench()
    epoch = stored_epoch(bench)
    servers[0].read_only_reason = "disk nearly full"

    effects = bench.heartbeat(servers[0])
    deliver(effects, *servers)
    assert modes(servers) == ["RO", "SYNC", "SYNC"]
    assert stored_epoch(bench) == epoch + 1
    assert group_state(bench) == ("SEALED", "read-only: chunk-1 (disk nearly full)")

    servers[0].read_only_reason = ""
    deliver(bench.heartbeat(servers[0]), *servers)
    for server in servers:
        server.synced_digest = b"equal"
        deliver(bench.heartbeat(server), *servers)
    assert modes(servers) == ["RW"] * 3


def test_a_new_term_seals_every_group_until_all_have_reported_again() -> None:
    bench, servers = writable_bench()
    epoch = stored_epoch(bench)
    bench.restart()
    for server in servers[:2]:
        deliver(bench.heartbeat(server), *servers)
        assert server.mode == "WAIT"
        assert server.term == 2
    deliver(bench.heartbeat(servers[2]), *servers)

    assert modes(servers) == ["SYNC"] * 3
    assert stored_epoch(bench) > epoch


def test_a_replaced_disk_catches_up_and_becomes_the_member() -> None:
    bench, servers = writable_bench()
    bench.tick(10.0)
    for server in servers[:2]:
        deliver(bench.heartbeat(server), *servers)
    servers[2].restart(uuid="a new disk")
    deliver(bench.heartbeat(servers[2]), *servers)

    assert modes(servers) == ["SYNC"] * 3
    for server in servers:
        server.synced_digest = b"equal"
        deliver(bench.heartbeat(server), *servers)
    assert modes(servers) == ["RW"] * 3
    value = bench.store.get(keys.group_key(1))
    assert value is not None
    assert decode_group(value).writable_uuids["chunk-3"] == "a new disk"


def test_a_group_whose_directories_are_all_new_stays_sealed_and_says_why() -> None:
    bench, servers = writable_bench()
    bench.tick(10.0)
    for server in servers:
        server.restart(uuid=f"new directory of {server.name}")
        deliver(bench.heartbeat(server), *servers)
    for server in servers:
        server.synced_digest = b"all are equally empty"
        deliver(bench.heartbeat(server), *servers)

    assert modes(servers) == ["WAIT"] * 3
    state, reason = group_state(bench)
    assert state == "SEALED"
    assert "new data directory" in reason

    bench.tick(20.0)
    for server in servers[:2]:
        deliver(bench.heartbeat(server), *servers)
    servers[2].restart(uuid="uuid-of-chunk-3")
    deliver(bench.heartbeat(servers[2]), *servers)
    assert modes(servers) == ["SYNC"] * 3


def test_all_new_directories_are_noticed_across_a_restart_of_the_master() -> None:
    bench, servers = writable_bench()
    bench.tick(10.0)
    for server in servers:
        server.restart(uuid=f"new directory of {server.name}")
        deliver(bench.heartbeat(server), *servers)
    bench.restart()
    for server in servers:
        deliver(bench.heartbeat(server), *servers)

    assert modes(servers) == ["WAIT"] * 3
    assert group_state(bench)[0] == "SEALED"


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ((0, 0, 0, 0), [1, 1, 2, 2]),
        ((2, 2, 1, 1), [2, 2, 1, 1]),
        ((7, 0, 7, 0), [7, 7, 0, 8]),
    ],
)
def test_servers_are_placed_by_wish_or_where_one_is_missing(
    wishes: tuple[int, ...], expected: list[int]
) -> None:
    bench = MasterBench(replicas=2)
    servers = [Server(f"chunk-{n}", group=wish) for n, wish in enumerate(wishes)]
    for server in servers:
        bench.heartbeat(server)

    status = bench.ask(GetStatus(1_000), ClusterStatus)
    assert [node.group for node in status.nodes] == expected


def test_a_server_for_a_complete_group_waits_outside() -> None:
    bench, _ = writable_bench()
    extra = Server("chunk-4", group=1)

    effects = bench.heartbeat(extra)
    assert assignments(effects)["chunk-4"] == Assignment(1, 0, 0, "WAIT", [], [], 4_000)
    status = bench.ask(GetStatus(1_000), ClusterStatus)
    assert status.nodes[3].reason == "group 1 is complete: this server is not needed there"
    assert group_state(bench)[0] == "WRITABLE"
    assert "chunk-4" not in [node.server for node in bench.ask(GetTopology(1_000), Topology).nodes]


def test_a_group_keeps_the_number_of_replicas_that_it_was_made_with() -> None:
    bench, servers = writable_bench(replicas=2)
    bench.replicas = 3
    bench.restart()
    for server in servers:
        deliver(bench.heartbeat(server), *servers)

    assert modes(servers) == ["SYNC"] * 2
