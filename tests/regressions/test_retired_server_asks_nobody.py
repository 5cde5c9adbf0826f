"""A server that was taken out of its group while it fetched a fragment asked the next of its old peers.

Found by the simulator (``python -m sim --seed 700042``).
"""

from __future__ import annotations

import msgspec

from fabric.node.effects import Sender
from fabric.wire.messages import BucketEntry, ReadFragment
from tests.unit.chunk.role_world import MASTER, World


def test_a_server_without_a_group_asks_no_old_peer() -> None:
    world = World("a", "b", "c")
    world.assign("RW", 1)
    world.cut.update({"b", "c"})
    role = world.servers["a"].role
    world._do(world.servers["a"], role._repairs.add(BucketEntry(5, 100, 1), world.now))
    asked = len([send for _, send in world.sent if isinstance(send.message, ReadFragment)])
    assert asked == 1
    out = msgspec.structs.replace(world.assignments["a"], group=0, epoch=2, mode="WAIT", members=[])
    world.assignments["a"] = out
    world._do(world.servers["a"], role.receive(out, Sender(MASTER, 0), world.now))
    world.settle()  # the answer of the first peer arrives
    world.advance(60)
    groups = [send.message.group for _, send in world.sent if isinstance(send.message, ReadFragment)]
    assert 0 not in groups
