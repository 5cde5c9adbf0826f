"""When faults strike, and how they end.

Each run has a handful of kinds of faults, so that some runs are about disks and others about the network.
Every fault has a number and a source of chance of its own: leaving one out does not change the others.
Number 0 is the weather of the network for the whole run, number 1 a loss of all power when faults end;
those from 2 on strike one after the other.
"""

from __future__ import annotations

import random

from fabric.settings import MIB
from sim.cluster import Cluster
from sim.faults import disks, network, operations, processes, upkeep
from sim.faults.scene import Scene
from sim.triggers import Triggers

PAUSES_S = ((0.1, 2.5), (0.1, 2.5), (0.02, 0.6))
KINDS_MIN, KINDS_MAX = 2, 7
WEATHER, BLACKOUT, FIRST = 0, 1, 2
BLACKOUT_SHARE = 0.3
SCRUB_SHARES = (0.03, 0.3)
"""Of runs without and with damaged disks: how many scrub."""

ALL_KINDS = {**processes.KINDS, **disks.KINDS, **network.KINDS, **upkeep.KINDS, **operations.KINDS}
_DAMAGE = {"rot", "stale block", "unreadable", "replace disk under rot"}


class Faults:
    """Does faults until told to stop."""

    def __init__(
        self, cluster: Cluster, kinds: tuple[str, ...] = (), only: tuple[int, ...] | None = None
    ) -> None:
        """``kinds``: the names of those to do; none: the seed chooses.  ``only``: numbers; None: all."""
        self._world = cluster.world
        self._seed = cluster.world.rng.getrandbits(64)
        self._only = only
        rng = self._timing = random.Random(self._seed)
        chosen = kinds or sorted(rng.sample(sorted(ALL_KINDS), rng.randint(KINDS_MIN, KINDS_MAX)))
        self.kinds = {name: ALL_KINDS[name] for name in chosen}
        self.done: list[tuple[int, float, str]] = []
        """What was done: number, when, kind."""
        self._number = FIRST
        self._pause_s = rng.choice(PAUSES_S)
        self._triggers = Triggers()
        self._triggers.attach(cluster)
        cluster.world.watchers.add(self._triggers)
        self.scene = Scene(cluster, rng, self._triggers)
        replaces = {"replace disk", "replace disk under rot"} & self.kinds.keys()
        self.scene.share_out(two_rot=not replaces and rng.random() < 0.5)
        scrubs = rng.random() < SCRUB_SHARES[bool(_DAMAGE & self.kinds.keys())]
        for host in cluster.chunks.values():
            host.scrubs = scrubs

    def begin(self) -> None:
        """The first fault comes soon."""
        self._world.note("faults", *self.kinds)
        if self._is_on(WEATHER, "weather"):
            network.set_weather(self.scene)
        self._next()

    def _next(self) -> None:
        self._world.after(self._timing.uniform(*self._pause_s), self._strike)

    def _strike(self) -> None:
        if not self.scene.active:
            return
        kind = self._timing.choice(list(self.kinds))
        if self._is_on(self._number, kind):
            self.kinds[kind](self.scene)
        self._number += 1
        self._next()

    def _is_on(self, number: int, kind: str) -> bool:
        """Is this one to be done?  If so, from now on it is its turn to be lucky."""
        if self._only is not None and number not in self._only:
            return False
        self.scene.rng = random.Random(f"{self._seed}/{number}")
        self.done.append((number, self._world.now, kind))
        self._world.note(f"fault {number}:", kind)
        return True

    def heal(self) -> None:
        """Faults stop; what needs an operator gets one."""
        scene, cluster = self.scene, self.scene.cluster
        scene.active = False
        self._world.note("healing")
        self._triggers.disarm_all()
        self._world.network.mend_all()
        if self._timing.random() < BLACKOUT_SHARE and self._is_on(BLACKOUT, "blackout"):
            processes.blackout(scene)
        for host in cluster.running():
            host.slowness, host.stall_s, host.cut_at = 1.0, 0.0, ""
            host.disk.capacity, host.disk.fail_syncs, host.home.full = 64 * MIB, 0, False
            disks.mend_unreadable(host)
            if host.failed_disk:
                host.kill(None)
        for process in self._world.processes.values():
            process.go_on()
            if process.wanted:
                process.start()
