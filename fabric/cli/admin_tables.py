"""Nodes and groups, as ``fabric admin`` shows them: tables, and a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fabric.cli.output import STYLES, duration_text, plain, print_json, print_table, size_text
from fabric.wire.messages import ClusterStatus, GroupStatus, NodeStatus

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

BAR_CELLS = 10
"""Width of the bar of a disk's free room."""


def print_groups(groups: list[GroupStatus]) -> None:
    """One row a group."""
    rows = [
        [
            str(group.group),
            group.state,
            group_reason(group),
            ", ".join(group.members),
            str(group.epoch),
            str(group.fragments),
            size_text(group.live_bytes),
            size_text(group.free_bytes),
        ]
        for group in groups
    ]
    columns = ["group", "state", "reason", "members", "epoch", "fragments", "stored", "free"]
    print_table("Groups", columns, rows, right=4)


def group_reason(group: GroupStatus) -> str:
    """Why it is in its state; also that it is being emptied."""
    return "; ".join(part for part in ("draining" if group.draining else "", group.reason) if part)


def print_nodes(nodes: list[NodeStatus]) -> None:
    """One row a server; a column for damage when there is some."""
    rows = [
        [
            node.server,
            node.state,
            node.reason,
            node.endpoint.removeprefix("tcp://"),
            str(node.group),
            duration_text(node.seen_ms_ago) if node.state != "INIT" or node.seen_ms_ago else "never",
            str(node.fragments),
            size_text(node.live_bytes),
            size_text(node.free_bytes),
        ]
        for node in nodes
    ]
    columns = ["server", "state", "reason", "address", "group", "seen ago", "fragments", "stored", "free"]
    numbers = 5
    if any(node.quarantined for node in nodes):
        columns.append("damaged")
        numbers += 1
        rows = [[*row, str(node.quarantined)] for row, node in zip(rows, nodes, strict=True)]
    print_table("Chunk servers", columns, rows, right=numbers)


def print_node(node: NodeStatus, as_json: bool) -> None:
    """Everything about one server."""
    if as_json:
        print_json(plain(node))
        return
    shown = plain(node)
    for name in ("live_bytes", "free_bytes", "capacity_bytes", "pending_bytes", "garbage_bytes"):
        shown[name.replace("_bytes", "")] = size_text(shown.pop(name))
    shown["seen ago"] = duration_text(shown.pop("seen_ms_ago"))
    shown["audit"] = f"{node.audit:.0%}"
    rows = [[name.replace("_", " "), str(value)] for name, value in shown.items()]
    print_table(node.server, ["", ""], rows)


# --- the tree --------------------------------------------------------------------------------------


def cluster_tree(cluster: ClusterStatus, title: str) -> Tree:
    """Groups, their servers, and how much room each has."""
    from rich.tree import Tree

    tree = Tree(title)
    nodes = {node.server: node for node in cluster.nodes}
    placed: set[str] = set()
    for group in cluster.groups:
        branch = tree.add(_group_line(group))
        for name in group.members:
            branch.add(_node_line(name, nodes.get(name), told=group.reason))
        for name in group.learners:
            branch.add(_node_line(name, nodes.get(name)))
        for _ in range(places_free(group)):
            branch.add(_styled("(no server yet)", "dim"))
        placed.update(group.members, group.learners)
    spare = [node for node in cluster.nodes if node.server not in placed]
    if spare:
        branch = tree.add("in no group")
        for node in spare:
            branch.add(_node_line(node.server, node))
    return tree


def tree_json(cluster: ClusterStatus) -> dict[str, object]:
    """The same for programs."""
    nodes = {node.server: node for node in cluster.nodes}
    placed = {name for group in cluster.groups for name in (*group.members, *group.learners)}

    def entry(name: str) -> dict[str, object]:
        node = nodes.get(name)
        return {"server": name} if node is None else plain(node)

    groups = [
        {
            **plain(group),
            "members": [entry(name) for name in group.members],
            "learners": [entry(name) for name in group.learners],
        }
        for group in cluster.groups
    ]
    spare = [plain(node) for node in cluster.nodes if node.server not in placed]
    return {"groups": groups, "spare": spare}


def places_free(group: GroupStatus) -> int:
    """So many servers it still lacks; learners are on their way."""
    return max(0, group.replicas - len(group.members) - len(group.learners))


def _group_line(group: GroupStatus) -> Text:
    line = _styled(f"group {group.group} ", "bold")
    line.append(group.state, STYLES.get(group.state, ""))
    line.append(f"  epoch {group.epoch}, {size_text(group.live_bytes)} in {group.fragments} fragments")
    if group_reason(group):
        line.append(f"  ({group_reason(group)})")
    return line


def _node_line(name: str, node: NodeStatus | None, told: str = "") -> Text:
    """``told``: a reason that stands beside the group already."""
    if node is None:
        return _styled(f"{name} unknown", "red")
    line = _styled(f"{name} ")
    line.append(node.state, STYLES.get(node.state, ""))
    line.append(f"  {node.endpoint.removeprefix('tcp://')}")
    if node.capacity_bytes:
        free = node.free_bytes / node.capacity_bytes
        used = BAR_CELLS - round(free * BAR_CELLS)
        line.append(f"  {'█' * used}{'░' * (BAR_CELLS - used)} {free:.0%} of ")
        line.append(f"{size_text(node.capacity_bytes)} free")
    if node.reason and node.reason != told:
        line.append(f"  ({node.reason})")
    return line


def _styled(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)
