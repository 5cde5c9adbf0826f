"""What operators order while everything else goes wrong: groups and servers that come and go.

Never the keeper of a group: it must stay, so that what others lose can be copied from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from fabric.wire.messages import AddGroup, CancelTask, StartTask

if TYPE_CHECKING:
    from sim.faults.scene import Scene
    from sim.hosts import ChunkHost

START_S = (0.0, 3.0)
READ_ONLY_S = (1.0, 6.0)
TASK_MAX = 4


def add_group(scene: Scene) -> None:
    """Three servers more, and the order for their group, in any sequence."""
    cluster = scene.cluster
    if cluster.operator.waiting:
        return
    group = cluster.reserve_group
    cluster.operator.order(lambda ms: AddGroup(ms, group, 0, False))
    for host in cluster.configured(group):
        _start(scene, host)


def drain_group(scene: Scene) -> None:
    """All that a group holds moves to others."""
    group = scene.rng.choice(scene.cluster.groups())
    scene.cluster.operator.order(lambda ms: StartTask(ms, "drain-group", group=group))


def replace_node(scene: Scene) -> None:
    """A spare takes the place of a certain server."""
    spare, server = scene.rng.choice(scene.cluster.spares).name, _member(scene)
    if not _all_have_formed(scene):
        return
    _start(scene, scene.cluster.chunks[spare])
    scene.cluster.operator.order(lambda ms: StartTask(ms, "replace-node", server=server, replacement=spare))


def drain_node(scene: Scene) -> None:
    """Any spare takes the place of a server."""
    server = _member(scene)
    if not _all_have_formed(scene):
        return
    for spare in scene.cluster.spares:
        _start(scene, spare)
    scene.cluster.operator.order(lambda ms: StartTask(ms, "drain-node", server=server))


def add_node(scene: Scene) -> None:
    """A group gets one more member."""
    spare, group = scene.rng.choice(scene.cluster.spares), scene.rng.choice(scene.cluster.groups())
    if not _all_have_formed(scene):
        return
    _start(scene, spare)
    scene.cluster.operator.order(lambda ms: StartTask(ms, "add-node", group=group, server=spare.name))


def search(scene: Scene) -> None:
    """An audit of everything, a comparison with the catalog, or an evening out of the groups.

    Each of the first two once in a run: they are hundreds of messages for every server.
    """
    kind: Literal["gc", "repair", "rebalance"] = scene.rng.choice(["gc", "repair", "rebalance"])
    if kind in scene.cluster.operator.ordered:
        kind = "rebalance"
    scene.cluster.operator.order(lambda ms: StartTask(ms, kind))


def cancel_task(scene: Scene) -> None:
    """Some task, if there is one with such a number."""
    task = scene.rng.randint(1, TASK_MAX)
    scene.cluster.operator.order(lambda ms: CancelTask(ms, task))


def set_read_only(scene: Scene) -> None:
    """A server, for a while."""
    server, operator = scene.chunk().name, scene.cluster.operator
    operator.set_status(server, "ro")
    scene.world.after(scene.rng.uniform(*READ_ONLY_S), lambda: operator.set_status(server, "rw"))


def _start(scene: Scene, host: ChunkHost) -> None:
    if not host.process.wanted:
        host.process.wanted = True
        scene.world.after(scene.rng.uniform(*START_S), host.process.start)


def _all_have_formed(scene: Scene) -> bool:
    """Has every group once taken writes?  Another may give its members away, and never form."""
    return all(map(scene.cluster.roster.writers, scene.cluster.groups()))


def _member(scene: Scene) -> str:
    members = scene.cluster.members(scene.rng.choice(scene.cluster.groups()))
    return scene.rng.choice([host for host in members if host not in scene.keepers]).name


KINDS: dict[str, Callable[[Scene], None]] = {
    "add group": add_group,
    "drain group": drain_group,
    "replace node": replace_node,
    "drain node": drain_node,
    "add node": add_node,
    "audit or rebalance": search,
    "cancel task": cancel_task,
    "read-only": set_read_only,
}
