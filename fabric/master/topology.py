"""The view of the cluster that clients work with, and its numbers.

Whatever subscribers must not miss has a number ``(term, sequence)``: a change of the view, and removed
immutable paths.  A new life of the master is a new term.  Free space changes all the time and decides
nothing, so it travels with the view and makes no new number.
"""

from __future__ import annotations

from collections.abc import Callable

from fabric.master import groups as states
from fabric.master.groups import Groups
from fabric.master.membership import LOST, UNSEEN, Membership, Node
from fabric.node.effects import Effect, Publish
from fabric.wire.messages import CatalogChanged, GroupView, NodeView, Topology

_STATES = {states.RW: "RW", states.RO: "RO", states.SYNC: "SYNCING", states.WAIT: "SYNCING"}


def node_state(node: Node, groups: Groups) -> str:
    """INIT, SYNCING, RW, RO or OFFLINE."""
    if node.phase == UNSEEN:
        return "INIT"
    if node.phase == LOST:
        return "OFFLINE"
    group = groups.groups.get(node.group)
    if group is None or groups.state(group)[0] == states.FORMING:
        return "INIT"
    return "RO" if node.read_only_reason else _STATES[groups.mode(node, group)]


class TopologyPublisher:
    """Builds views, numbers them, and publishes one when it differs from the one before."""

    def __init__(
        self, membership: Membership, groups: Groups, is_moving: Callable[[], bool] = lambda: False
    ) -> None:
        """``is_moving`` says whether proxies are to ask for fragments to move."""
        self._membership = membership
        self._groups = groups
        self._is_moving = is_moving
        self._told_moving = False
        self._term = 0
        self._sequence = 0
        self._published: tuple[object, ...] | None = None

    def start(self, term: int) -> None:
        """Number from (term, 1)."""
        self._term, self._sequence = term, 1
        self._published = self._essence(self.view())

    def view(self) -> Topology:
        """The cluster as it is now."""
        groups = self._groups
        nodes = [
            NodeView(node.server, node.endpoint, node.group, node_state(node, groups))
            for group in groups.groups.values()
            if group.record is not None
            for node in map(self._membership.nodes.__getitem__, group.record.members)
        ]
        views = [
            GroupView(
                group.group,
                group.record.epoch,
                groups.is_writable(group),
                min((n.beat.free_bytes if n.beat else 0 for n in groups.nodes_of(group)), default=0),
                list(group.record.members),
            )
            for group in groups.groups.values()
            if group.record is not None
        ]
        return Topology(self._term, self._sequence, nodes, views, self._is_moving())

    @property
    def is_moving_news(self) -> bool:
        """Has it changed, since the last publication, whether there is anything to move?"""
        return self._told_moving != self._is_moving()

    def publish_if_changed(self) -> list[Effect]:
        """A numbered view, unless nothing but free space changed."""
        view = self.view()
        self._told_moving = view.moving
        essence = self._essence(view)
        if essence == self._published:
            return []
        self._published = essence
        self._sequence += 1
        return [Publish(self.view())]

    def publish_paths(self, paths: list[str]) -> list[Effect]:
        """These immutable paths are gone or replaced."""
        if not paths:
            return []
        self._sequence += 1
        return [Publish(CatalogChanged(self._term, self._sequence, paths))]

    @staticmethod
    def _essence(view: Topology) -> tuple[object, ...]:
        groups = [(g.group, g.epoch, g.writable, g.members) for g in view.groups]
        return view.nodes, groups, view.moving
