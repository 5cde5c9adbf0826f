"""What the operator asks and orders."""

from __future__ import annotations

from fabric.errors import BadRequest, Refused
from fabric.master.deletion import Deletion
from fabric.master.groups import FORMING, Group, Groups
from fabric.master.membership import LOST, UNSEEN, WANTED, Membership, Node
from fabric.master.topology import node_state
from fabric.wire.messages import ClusterStatus, GroupStatus, NodeStatus


class Operator:
    """Builds the answers to ``GetStatus`` and checks what ``SetServerStatus`` names."""

    def __init__(self, membership: Membership, groups: Groups, deletion: Deletion, version: str) -> None:
        self._membership = membership
        self._groups = groups
        self._deletion = deletion
        self._version = version

    def status(self, term: int, uptime_s: float, fid_high_water: int, now: float) -> ClusterStatus:
        """Everything about nodes and groups, sorted by name and number."""
        nodes, groups = self._membership.nodes, self._groups.groups
        return ClusterStatus(
            term,
            int(uptime_s * 1000),
            self._version,
            fid_high_water,
            self._deletion.total(),
            [self.node_status(nodes[server], now) for server in sorted(nodes)],
            [self.group_status(groups[group]) for group in sorted(groups)],
        )

    def find(self, server: str, status: str) -> Node:
        """The node that an order is about.  Raises BadRequest for an unknown status, Refused for an
        unknown server."""
        if status not in WANTED:
            raise BadRequest(f"status {status!r} is neither rw nor ro")
        node = self._membership.nodes.get(server)
        if node is None:
            known = ", ".join(sorted(self._membership.nodes)) or "none"
            raise Refused(f"no server is named {server!r}; known servers: {known}")
        return node

    def node_status(self, node: Node, now: float) -> NodeStatus:
        """One node; numbers are those of its last heartbeat."""
        beat = node.beat
        return NodeStatus(
            server=node.server,
            uuid=node.uuid,
            endpoint=node.endpoint,
            group=node.group,
            epoch=beat.epoch if beat else 0,
            state=node_state(node, self._groups),
            reason=self._reason(node),
            wanted=node.wanted,
            fragments=beat.fragments if beat else 0,
            live_bytes=beat.live_bytes if beat else 0,
            free_bytes=beat.free_bytes if beat else 0,
            capacity_bytes=beat.capacity_bytes if beat else 0,
            pending_bytes=beat.pending_bytes if beat else 0,
            seen_ms_ago=int((now - node.seen_at) * 1000) if beat else 0,
            pending_deletes=self._deletion.count(node.server),
            quarantined=beat.quarantined if beat else 0,
            garbage_bytes=beat.garbage_bytes if beat else 0,
        )

    @staticmethod
    def why_outside(node: Node) -> str:
        """Why a server has no group."""
        if node.is_retired:
            return f"retired from group {node.retired_from}: stop it, wipe its data directory"
        if node.beat is not None and node.beat.group:
            return f"group {node.beat.group} is complete: this server is not needed there"
        return "in no group: it waits for one"

    def _reason(self, node: Node) -> str:
        if node.is_retired and not node.group:
            return self.why_outside(node)
        if node.is_expected:
            return "never seen yet: it joins its group when it appears"
        if node.phase == UNSEEN:
            return "not heard of since the master's start"
        if node.phase == LOST:
            return "no heartbeat within its lease" if node.beat else "not heard of since the master's start"
        if node.read_only_reason:
            return node.read_only_reason
        group = self._groups.groups.get(node.group)
        if group is None:
            return self.why_outside(node)
        if node.server in group.learners:
            return self._reason_of_learner(node, group)
        return self._groups.state(group)[1]

    @staticmethod
    def _reason_of_learner(node: Node, group: Group) -> str:
        replaced = group.learners[node.server]
        if replaced == node.server:
            return f"was away: it copies what it missed, to be a member of group {group.group} again"
        place = f" in the place of {replaced}" if replaced else ""
        return f"copies group {group.group}, to be a member{place}"

    def group_status(self, group: Group) -> GroupStatus:
        state, reason = self._groups.state(group)
        beats = [node.beat for node in self._groups.nodes_of(group) if node.beat is not None]
        complete = len(beats) == len(group.members) and state != FORMING
        return GroupStatus(
            group=group.group,
            epoch=group.record.epoch if group.record else 0,
            state=state,
            reason=reason,
            replicas=group.replicas,
            members=list(group.members),
            free_bytes=min((beat.free_bytes for beat in beats), default=0) if complete else 0,
            live_bytes=max((beat.live_bytes for beat in beats), default=0),
            fragments=max((beat.fragments for beat in beats), default=0),
            learners=list(group.learners),
            draining=group.draining,
        )
