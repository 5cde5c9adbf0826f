"""From a deleted object to fragments that every member has confirmed as gone, and nothing before."""

from __future__ import annotations

import pytest

from fabric.master import deletion
from fabric.settings import FRAGMENTS_PER_PAGE_MAX
from fabric.wire.messages import (
    AppendOperation,
    ClusterStatus,
    DeleteOperation,
    Fragments,
    GetStatus,
    ListFragments,
    MoveOperation,
    PutOperation,
)
from tests.unit.master.bench import MasterBench, Server, assignments, deliver, fragment, writable_bench

Bench = tuple[MasterBench, tuple[Server, ...]]


@pytest.fixture
def cluster() -> Bench:
    bench, servers = writable_bench()
    bench.lease(10_000)
    return bench, servers


def stay_alive(cluster: Bench, seconds: float, *servers: Server) -> None:
    """Let time pass with these servers sending heartbeats; each does what it is told to at once."""
    bench, everyone = cluster
    end = bench.now + seconds
    while bench.now < end:
        deliver(bench.tick(min(bench.now + 1.0, end)), *everyone)
        for server in servers or everyone:
            deliver(bench.heartbeat(server), *everyone)
            server.deleted = list(server.deletes)


def pending(bench: MasterBench) -> dict[str, int]:
    status = bench.ask(GetStatus(1_000), ClusterStatus)
    assert status.pending_deletes == sum(node.pending_deletes for node in status.nodes)
    return {node.server: node.pending_deletes for node in status.nodes}


def leftovers(bench: MasterBench) -> list[bytes]:
    return [key for key, _ in bench.store.scan(b"", b"\xff", 100_000) if key[:2] in (b"x/", b"f/", b"d/")]


def put(path: str, *fids: int) -> PutOperation:
    return PutOperation(path, [fragment(fid) for fid in fids])


def told(bench: MasterBench, server: Server) -> list[int]:
    return assignments(bench.heartbeat(server))[server.name].deletes


def test_fragments_of_a_deleted_object_are_deleted_after_the_grace_and_then_forgotten(cluster: Bench) -> None:
    bench, servers = cluster
    bench.commit(put("a", 1, 2))
    bench.commit(DeleteOperation("a"))
    stay_alive(cluster, 29.0)
    assert [told(bench, server) for server in servers] == [[], [], []]
    assert bench.ask(ListFragments(1_000, 1, 0), Fragments).fragments == [fragment(1), fragment(2)]

    bench.tick(30.5)
    assert [told(bench, server) for server in servers] == [[1, 2]] * 3
    assert pending(bench) == {"chunk-1": 2, "chunk-2": 2, "chunk-3": 2}
    assert bench.refused(ListFragments(1_000, 1, 0)).code == "NOT_FOUND"

    stay_alive(cluster, 3.0)
    assert pending(bench) == {"chunk-1": 0, "chunk-2": 0, "chunk-3": 0}
    assert leftovers(bench) == []


@pytest.mark.parametrize(
    "operation", [put("a", 9), MoveOperation("b", "a"), DeleteOperation("a")], ids=["put", "move", "delete"]
)
def test_whatever_takes_the_place_of_an_object_dooms_its_fragments(
    cluster: Bench, operation: PutOperation
) -> None:
    bench, servers = cluster
    bench.commit(put("a", 1), put("b", 2))
    bench.commit(operation)
    stay_alive(cluster, 29.9)
    bench.tick(30.5)

    assert told(bench, servers[0]) == [1]


def test_a_move_dooms_nothing(cluster: Bench) -> None:
    bench, _servers = cluster
    bench.commit(put("a", 1))
    bench.commit(MoveOperation("a", "b"), MoveOperation("b", "b"))
    assert [key[:2] for key in leftovers(bench)] == [b"f/"]


def test_when_all_is_deleted_nothing_more_is_written(cluster: Bench) -> None:
    bench, _servers = cluster
    bench.commit(put("a", 1))
    bench.commit(DeleteOperation("a"))
    stay_alive(cluster, 35.0)
    assert leftovers(bench) == []
    writes = bench.store.writes  # type: ignore[attr-defined]
    stay_alive(cluster, 5.0)
    assert bench.store.writes == writes  # type: ignore[attr-defined]


def test_a_member_that_is_away_keeps_its_list_until_it_confirms(cluster: Bench) -> None:
    bench, servers = cluster
    bench.commit(put("a", 1, 2, 3))
    bench.commit(DeleteOperation("a"))
    stay_alive(cluster, 40.0, servers[0], servers[1])
    assert pending(bench) == {"chunk-1": 0, "chunk-2": 0, "chunk-3": 3}

    bench.restart()
    assert pending(bench) == {"chunk-1": 0, "chunk-2": 0, "chunk-3": 3}
    for server in servers:
        server.deleted = []
        deliver(bench.heartbeat(server), *servers)
    assert [server.deletes for server in servers] == [[], [], [1, 2, 3]]
    servers[2].deleted = [1, 3]
    bench.heartbeat(servers[2])
    servers[2].deleted = []
    assert told(bench, servers[2]) == [2]


def test_a_confirmation_counts_only_for_its_own_member(cluster: Bench) -> None:
    bench, servers = cluster
    bench.commit(put("a", 1))
    bench.commit(DeleteOperation("a"))
    stay_alive(cluster, 29.5)
    bench.tick(31.0)
    servers[0].deleted = [1, 77]
    bench.heartbeat(servers[0])

    assert pending(bench) == {"chunk-1": 0, "chunk-2": 1, "chunk-3": 1}


def test_a_confirmation_on_its_way_to_the_store_is_not_asked_for_again(cluster: Bench) -> None:
    bench, servers = cluster
    bench.commit(put("a", 1, 2))
    bench.commit(DeleteOperation("a"))
    stay_alive(cluster, 29.5)
    bench.tick(31.0)
    bench.hold = True
    servers[0].deleted = [1]
    assert told(bench, servers[0]) == [2]
    assert len(bench.held) == 1
    assert told(bench, servers[0]) == [2]
    bench.write_held()
    assert (bench.held, told(bench, servers[0])) == ([], [2])


def test_an_empty_replacement_disk_takes_over_the_deletes_of_its_peers(cluster: Bench) -> None:
    """It copies from them, and they may still hold what it must not take over."""
    bench, servers = cluster
    bench.commit(put("a", 1, 2))
    bench.commit(DeleteOperation("a"))
    stay_alive(cluster, 40.0, servers[0], servers[1])
    assert pending(bench) == {"chunk-1": 0, "chunk-2": 0, "chunk-3": 2}

    bench.tick(bench.now + 10.0)
    servers[0].restart(uuid="new disk")
    servers[0].deleted = []
    deliver(bench.heartbeat(servers[0]), *servers)
    assert pending(bench) == {"chunk-1": 2, "chunk-2": 0, "chunk-3": 2}
    assert servers[0].deletes == [1, 2]


def test_members_wait_when_one_has_more_to_delete_than_one_assignment_holds(
    cluster: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, servers = cluster
    for module in ("deletion", "standings"):
        monkeypatch.setattr(f"fabric.master.{module}.DELETES_PER_ASSIGNMENT", 2)
    bench.commit(put("a", 1, 2, 3))
    bench.commit(DeleteOperation("a"))
    stay_alive(cluster, 40.0, servers[0], servers[1])
    servers[2].restart()
    servers[2].deleted = []
    deliver(bench.heartbeat(servers[2]), *servers)
    assert [server.mode for server in servers] == ["WAIT"] * 3
    assert servers[2].deletes == [1, 2]

    servers[2].deleted = [1, 2]
    bench.heartbeat(servers[2])
    for server in servers:
        deliver(bench.heartbeat(server), *servers)
    assert [server.mode for server in servers] == ["SYNC"] * 3


@pytest.mark.parametrize("restarted", [False, True])
def test_a_large_object_is_taken_apart_in_steps_that_survive_a_restart(
    cluster: Bench, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    bench, _servers = cluster
    monkeypatch.setattr(deletion, "PAGES_PER_STEP", 2)
    count = FRAGMENTS_PER_PAGE_MAX
    bench.commit(PutOperation("big", []), put("small", 9_000))
    for n in range(5):
        refs = [fragment(n * count + i + 1) for i in range(count)]
        bench.commit(AppendOperation("big", refs, n * count * 100))
    bench.commit(DeleteOperation("big"), DeleteOperation("small"))
    stay_alive(cluster, 29.9)
    bench.hold = True
    bench.tick(30.0)
    assert len(bench.held) == 1
    bench.write_held()
    assert pending(bench) == dict.fromkeys(("chunk-1", "chunk-2", "chunk-3"), 2 * count)
    bench.hold = False
    if restarted:
        bench.restart()
    bench.tick(bench.now + 31.0)

    assert pending(bench) == dict.fromkeys(("chunk-1", "chunk-2", "chunk-3"), 5 * count + 1)
    assert {key[:2] for key in leftovers(bench)} == {b"d/"}


def test_an_object_without_fragments_leaves_nothing_to_do(cluster: Bench) -> None:
    bench, _ = cluster
    bench.commit(PutOperation("empty", []))
    bench.commit(DeleteOperation("empty"))
    assert leftovers(bench) == []
