"""Orders to a master on a bench, as its tasks give them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fabric.errors import BadRequest, Refused
from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.groups import Groups
from fabric.master.journal import After
from fabric.master.records import GroupRecord, NodeRecord, decode_group, decode_node
from fabric.node.effects import Effect
from fabric.wire.messages import (
    ClusterStatus,
    GetStatus,
    GetTopology,
    GroupStatus,
    GroupView,
    NodeStatus,
    Topology,
)
from tests.unit.master.bench import MasterBench, Server, deliver

Order = Callable[[Groups, DeltaStore], After]


def groups_of(bench: MasterBench) -> Groups:
    return bench.role._groups


def order(bench: MasterBench, apply: Order) -> list[Effect]:
    """Have it carried out; raises what it raises."""
    refusals: list[Refused | BadRequest] = []

    def change(delta: DeltaStore, now: float) -> After:
        try:
            return apply(groups_of(bench), delta)
        except (Refused, BadRequest) as error:
            refusals.append(error)
            return lambda now: []

    role = bench.role
    role._journal.submit(change)
    effects = bench._settle([])
    if refusals:
        raise refusals[0]
    return effects


def join(bench: MasterBench, server: str, replaces: str = "", group: int = 1) -> list[Effect]:
    return order(bench, lambda groups, delta: groups.join(delta, server, group, replaces))


def cancel(bench: MasterBench, server: str) -> list[Effect]:
    return order(bench, lambda groups, delta: groups.cancel_join(delta, server))


def drain(bench: MasterBench, group: int = 1, draining: bool = True) -> list[Effect]:
    return order(bench, lambda groups, delta: groups.set_draining(delta, group, draining))


def add_group(bench: MasterBench, group: int = 0, replicas: int = 0) -> int:
    planned, changed = groups_of(bench).plan_group(group, replicas)

    def apply(groups: Groups, delta: DeltaStore) -> After:
        done = groups.store_group(delta, planned)

        def after(now: float) -> list[Effect]:
            done()
            return []

        return after

    if changed:
        order(bench, apply)
    return planned.group


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.message


def stored_group(bench: MasterBench, group: int = 1) -> GroupRecord:
    value = bench.store.get(keys.group_key(group))
    assert value is not None
    return decode_group(value)


def stored_node(bench: MasterBench, server: str) -> NodeRecord | None:
    value = bench.store.get(keys.node_key(server))
    return None if value is None else decode_node(value)


def group_status(bench: MasterBench, group: int = 1) -> GroupStatus:
    status = bench.ask(GetStatus(1_000), ClusterStatus)
    return next(found for found in status.groups if found.group == group)


def node_status(bench: MasterBench, server: str) -> NodeStatus:
    status = bench.ask(GetStatus(1_000), ClusterStatus)
    return next(found for found in status.nodes if found.server == server)


def view_of(bench: MasterBench, group: int = 1) -> GroupView:
    view = bench.ask(GetTopology(1_000), Topology)
    return next(found for found in view.groups if found.group == group)


def beat(bench: MasterBench, *servers: Server, to: tuple[Server, ...] = ()) -> None:
    """A heartbeat of each; all of them (and those in ``to``) hear what comes of it."""
    for server in servers:
        deliver(bench.heartbeat(server), *servers, *to)


def sync(bench: MasterBench, *servers: Server) -> None:
    """All that are told to catch up do, and say so, until no epoch changes any more."""
    for _ in range(3):
        for server in servers:
            if server.mode == "SYNC":
                server.synced_digest = b"equal"
            deliver(bench.heartbeat(server), *servers)


def events_of(bench: MasterBench) -> list[tuple[str, str, str]]:
    """What the groups tell from now on."""
    told: list[tuple[str, str, str]] = []
    groups_of(bench).on_event = lambda kind, subject, text: told.append((kind, subject, text))
    return told
