"""Whom a fault may strike.

What the design cannot survive is not done.  Of each group one member, the *keeper*, holds what it has
acknowledged, come what may.  The disk of another rots, and has places that cannot be read.  The third either
rots too, or its disk is replaced by an empty one; not both, so that what the replaced one has lost can be
copied from the keeper while the other source is damaged.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from sim.triggers import Triggers

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.hosts import ChunkHost
    from sim.process import Process

DOWN_S = (0.1, 8.0)
LONG_DOWN_S = 20.0
LONG_SHARE = 0.1


class Scene:
    """The cluster, as a fault sees it.  ``rng`` is the fault's own."""

    def __init__(self, cluster: Cluster, rng: random.Random, triggers: Triggers) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.rng = rng
        self.triggers = triggers
        self.rotten: list[ChunkHost] = []
        self.replaceable: list[ChunkHost] = []
        self.keepers: list[ChunkHost] = []
        self.active = True
        """Are faults still done?"""

    def share_out(self, two_rot: bool) -> None:
        """Decide which members may be damaged, and how."""
        for group in self.cluster.groups():
            keeper, rotten, third = self.rng.sample(self.cluster.members(group), 3)
            for host in (rotten, third):
                host.keeper = keeper
            self.keepers.append(keeper)
            self.rotten.append(rotten)
            (self.rotten if two_rot else self.replaceable).append(third)

    def down_s(self) -> float:
        """How long something that was killed stays down."""
        if self.rng.random() < LONG_SHARE:
            return self.rng.uniform(DOWN_S[1], LONG_DOWN_S)
        return self.rng.uniform(*DOWN_S)

    def chunk(self) -> ChunkHost:
        """Some chunk server."""
        return self.rng.choice(self.cluster.running())

    def proxy(self) -> Process:
        """Some proxy."""
        return self.rng.choice(self.cluster.proxies).process

    def servers(self) -> list[Process]:
        """All but clients and operators."""
        kinds = ("master", "chunk", "proxy", "keeper")
        return [p for p in self.world.processes.values() if p.kind in kinds and p.wanted]

    def any(self) -> Process:
        """Some server."""
        return self.rng.choice(self.servers())
