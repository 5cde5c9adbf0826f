"""Who is alive, and whose name a name is."""

from __future__ import annotations

import pytest

from fabric.master.membership import Membership
from fabric.node.effects import Reply, Sender
from fabric.wire.messages import Assignment, ClusterStatus, Failed, GetStatus
from tests.unit.master.bench import MasterBench, Server, deliver, exits, route, writable_bench


def answer(bench: MasterBench, server: Server) -> Assignment | Failed:
    """The reply to a heartbeat."""
    sender = Sender(b"somewhere", 77)
    replies = [e for e in bench.tell(server.beat(), sender) if isinstance(e, Reply) and e.to == sender]
    assert len(replies) == 1
    assert isinstance(replies[0].message, Assignment | Failed)
    return replies[0].message


def test_a_silent_server_expires_exactly_once_at_the_end_of_its_lease() -> None:
    members = Membership(lease_s=4.0)
    node, changed = members.on_heartbeat(Server("chunk-1").beat(), b"route", now=10.0)

    assert changed
    assert members.due_at() == 14.0
    assert members.expire(now=13.9) == []
    assert members.expire(now=14.0) == [node]
    assert members.expire(now=99.0) == []
    assert members.due_at() is None


def test_a_heartbeat_renews_the_lease_and_changes_nothing_else() -> None:
    members = Membership(lease_s=4.0)
    node, _ = members.on_heartbeat(Server("chunk-1").beat(), b"route", now=0.0)

    assert members.on_heartbeat(Server("chunk-1").beat(), b"route", now=3.0) == (node, False)
    assert members.expire(now=4.0) == []
    assert members.due_at() == 7.0
    assert node.session == 1


def test_a_second_server_of_one_name_is_refused_while_the_first_is_alive() -> None:
    bench, servers = writable_bench()
    rival = Server("chunk-1", uuid="another directory", incarnation=99)

    refusal = answer(bench, rival)
    assert isinstance(refusal, Failed)
    assert refusal.code == "REFUSED"
    assert "uuid-of-chunk-1" in refusal.message
    assert len(bench.heartbeat(servers[0])) == 1, "the first is not disturbed"


def test_another_directory_is_accepted_when_the_first_server_is_lost() -> None:
    bench, _servers = writable_bench()
    bench.tick(10.0)

    assert isinstance(answer(bench, Server("chunk-1", uuid="replaced", incarnation=99)), Assignment)
    status = bench.ask(GetStatus(1_000), ClusterStatus)
    assert status.nodes[0].uuid == "replaced"


def test_after_the_masters_start_an_unheard_server_keeps_its_name_for_one_lease() -> None:
    bench, _servers = writable_bench()
    bench.tick(1.0)
    bench.restart()
    rival = Server("chunk-1", uuid="another directory", incarnation=99)
    assert isinstance(answer(bench, rival), Failed)

    bench.tick(5.0)
    assert isinstance(answer(bench, rival), Assignment)


def test_a_late_heartbeat_of_an_earlier_life_is_refused() -> None:
    bench, servers = writable_bench()
    late = servers[0].beat()
    servers[0].restart()
    bench.heartbeat(servers[0])

    effects = bench.tell(late, Sender(route("chunk-1"), 5))
    assert [effect.message.code for effect in effects] == ["REFUSED"]
    assert len(bench.heartbeat(servers[0])) == 1, "the present life goes on undisturbed"


def test_a_server_that_was_started_for_another_group_is_refused() -> None:
    bench, servers = writable_bench()
    servers[0].restart()
    servers[0].group = 2

    refusal = answer(bench, servers[0])
    assert isinstance(refusal, Failed)
    assert "belongs to group 1" in refusal.message


@pytest.mark.parametrize("name", ["a\0b", "a\nb", " a", "a "])
def test_an_impossible_name_is_refused(name: str) -> None:
    refusal = answer(MasterBench(), Server(name))
    assert isinstance(refusal, Failed)
    assert refusal.code == "BAD_REQUEST"


def test_a_server_of_a_later_term_shows_that_this_master_has_an_old_store() -> None:
    bench, servers = writable_bench()
    servers[0].term = 9

    refusal = answer(bench, servers[0])
    assert isinstance(refusal, Failed)
    assert refusal.code == "REFUSED"
    assert "term 9" in refusal.message


def test_a_registration_survives_the_master() -> None:
    bench, servers = writable_bench()
    bench.restart()

    nodes = bench.ask(GetStatus(1_000), ClusterStatus).nodes
    assert [(node.server, node.uuid, node.group, node.state) for node in nodes] == [
        (server.name, f"uuid-of-{server.name}", 1, "INIT") for server in servers
    ]
    assert [node.endpoint for node in nodes] == [f"tcp://{server.name}:7410" for server in servers]


def test_a_server_that_nobody_has_heard_of_since_the_start_is_offline_after_a_lease() -> None:
    bench, _ = writable_bench()
    bench.restart()
    bench.tick(4.0)

    nodes = bench.ask(GetStatus(1_000), ClusterStatus).nodes
    assert {(node.state, node.seen_ms_ago) for node in nodes} == {("OFFLINE", 0)}


def test_a_slow_store_does_not_keep_heartbeats_waiting() -> None:
    bench, servers = writable_bench()
    bench.hold = True
    bench.tell(bench.commit_message())  # an empty commit still needs a write for its operation id

    for now in range(1, 30):
        bench.now = float(now)
        for server in servers:
            reply = answer(bench, server)
            assert isinstance(reply, Assignment)
            assert reply.mode == "RW"
        assert not exits(bench.tick(bench.now))


def test_a_member_that_moved_is_known_by_its_new_address() -> None:
    bench, servers = writable_bench()
    servers[0].restart()
    beat = servers[0].beat()
    moved = type(beat)(
        *[
            "tcp://elsewhere:1" if field == "endpoint" else getattr(beat, field)
            for field in beat.__struct_fields__
        ]
    )
    effects = bench.tell(moved, Sender(route("chunk-1"), 1))
    deliver(effects, *servers)
    bench.restart()

    nodes = bench.ask(GetStatus(1_000), ClusterStatus).nodes
    assert nodes[0].endpoint == "tcp://elsewhere:1"
