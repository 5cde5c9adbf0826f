"""What the proxy believes about the cluster: nodes, groups, and how fresh that is.

Updates are numbered ``(term, sequence)``.  A published update is only a hint for speed; when one is
missing, or none came for a while, the proxy asks for a snapshot.  An older view never replaces a
newer one.
"""

from __future__ import annotations

from fabric.wire.messages import GroupView, NodeView, Topology


class ClusterView:
    """The newest topology seen."""

    def __init__(self) -> None:
        self.term = 0
        self.sequence = 0
        self.nodes: dict[str, NodeView] = {}
        self.groups: dict[int, GroupView] = {}
        self.moving = False
        """The master has fragments to be moved."""

    @property
    def known(self) -> bool:
        """Has there been any snapshot yet?"""
        return self.term > 0

    def adopt(self, topology: Topology) -> bool:
        """Take over a snapshot or a published topology; False when it is not newer than ours."""
        if (topology.term, topology.sequence) < (self.term, self.sequence):
            return False
        self.term, self.sequence = topology.term, topology.sequence
        self.nodes = {node.server: node for node in topology.nodes}
        self.groups = {group.group: group for group in topology.groups}
        self.moving = topology.moving
        return True

    def follows(self, term: int, sequence: int) -> bool:
        """Is (term, sequence) the number that comes right after ours?"""
        return term == self.term and sequence == self.sequence + 1

    def writable_groups(self) -> list[GroupView]:
        """Groups that take writes now, and all of whose members the view knows an address of."""
        return [
            group
            for group in self.groups.values()
            if group.writable and group.members and self.nodes.keys() >= set(group.members)
        ]

    def members(self, group: int) -> list[NodeView]:
        """The replicas of a group that the view knows an address of."""
        view = self.groups.get(group)
        if view is None:
            return []
        return [self.nodes[name] for name in view.members if name in self.nodes]
