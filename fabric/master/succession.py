"""Who follows whom: how a group's members change while its data stay.

A *learner* copies what the members hold while they take writes.  When it has all but the last moments of it,
it is promoted: it becomes a member, in a new epoch, and the one that it replaces is retired.  Like any new
epoch this one is sealed until all members are equal, but there is little left to copy.

    learner, synced in the present epoch, all members alive  -> promoted
    learner, the member that it replaces is lost             -> promoted at once: the group is sealed anyway
    member lost, enough others alive (min_write_replicas)    -> demoted: it learns when it is back

Every acknowledged write is on every member of the last writable epoch: ``writable_uuids`` names their data
directories.  Those that are left and alive hold everything, others perhaps not.  So one of them must remain
with every step.  Lost means that the lease is over, never that a server was not heard of yet.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fabric.master.group import Group
from fabric.master.membership import LOST, Node

Nodes = Mapping[str, Node]


class Step(msgspec.Struct, frozen=True):
    """What a group is to become."""

    members: list[str]
    learners: dict[str, str]
    replicas: int
    retired: str
    """A server that leaves the group; empty: none."""
    text: str
    """For people."""


def next_step(group: Group, nodes: Nodes, term: int, min_write_replicas: int) -> Step | None:
    """The change of members that is due, one at a time; None: none is.

    ``min_write_replicas`` 0: a group never goes on without a member.
    """
    if group.record is None:
        return None
    demotion = _demotion(group, nodes, min_write_replicas)
    if demotion is not None:
        return demotion
    for learner, replaced in group.learners.items():
        if group.record.learners.get(learner) == replaced and _is_ready(
            group, nodes, term, learner, replaced
        ):
            return _promotion(group, learner, replaced)
    return None


def is_good(group: Group, node: Node) -> bool:
    """Was this data directory part of the last writable epoch?"""
    return group.record is not None and group.record.writable_uuids.get(node.server) == node.uuid


def _demotion(group: Group, nodes: Nodes, min_write_replicas: int) -> Step | None:
    if min_write_replicas < 1 or not group.was_writable:
        return None
    members = [nodes[name] for name in group.members]
    lost = [node.server for node in members if node.phase == LOST]
    good = [node for node in members if node.alive and is_good(group, node)]
    if not lost or len(good) < min_write_replicas:
        return None
    names = ", ".join(lost)
    return Step(
        [name for name in group.members if name not in lost],
        {**group.learners, **{name: name for name in lost}},
        group.replicas,
        "",
        f"goes on without {names}, lost: it learns when it is back",
    )


def _is_ready(group: Group, nodes: Nodes, term: int, learner: str, replaced: str) -> bool:
    node = nodes[learner]
    if not node.alive or node.read_only_reason or node.replaced or node.stored != node.record():
        return False
    rest = [nodes[name] for name in group.members if name not in (learner, replaced)]
    if group.was_writable and not any(other.alive and is_good(group, other) for other in rest):
        return False
    if replaced in group.members and nodes[replaced].phase == LOST:
        return True
    beat = node.beat
    if group.record is None or beat is None or not beat.synced_digest:
        return False
    if (beat.term, beat.epoch) != (term, group.record.epoch):
        return False
    return all(nodes[name].alive for name in group.members)


def _promotion(group: Group, learner: str, replaced: str) -> Step:
    retired = replaced if replaced != learner else ""
    place = f" in the place of {retired}, which is retired" if retired else ""
    return Step(
        [*(name for name in group.members if name != replaced), learner],
        {name: whose for name, whose in group.learners.items() if name not in (learner, replaced)},
        group.replicas + (1 if not replaced and group.missing <= 0 else 0),
        retired,
        f"{learner} becomes a member{place}",
    )
