"""What goes wrong in the safety phase, and how it ends.

Each run has a handful of kinds of faults, so that some runs are about disks and others about the network.
What the design cannot survive is not done: per group, bits rot on one machine only, disks are replaced on
another, and the third keeps what it has acknowledged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fabric.settings import MIB

if TYPE_CHECKING:
    from sim.cluster import Cluster
    from sim.hosts import ChunkHost, MasterHost
    from sim.process import Process

PAUSES_S = ((0.1, 2.5), (0.1, 2.5), (0.02, 0.6))
DOWN_S = (0.1, 8.0)
KINDS_MIN, KINDS_MAX = 2, 7


class Faults:
    """Chooses faults by the world's chance and does them until told to stop."""

    def __init__(self, cluster: Cluster, kinds: Sequence[str] = ()) -> None:
        """``kinds``: the names of those to do; none: the seed chooses."""
        self._cluster = cluster
        self._world = cluster.world
        self._rng = random.Random(cluster.world.rng.getrandbits(64))
        self._rotten: dict[int, ChunkHost] = {}
        self._replaceable: dict[int, ChunkHost] = {}
        for group in cluster.groups():
            self._rotten[group], self._replaceable[group] = self._rng.sample(cluster.members(group), 2)
        self.active = True
        known = self._kinds()
        chosen = kinds or sorted(self._rng.sample(sorted(known), self._rng.randint(KINDS_MIN, KINDS_MAX)))
        self.kinds = {name: known[name] for name in chosen}
        self._pause_s = self._rng.choice(PAUSES_S)
        scrubs = "rot" in self.kinds or self._rng.random() < 0.15
        for host in cluster.chunks.values():
            host.scrubs = scrubs

    def _kinds(self) -> dict[str, Callable[[], None]]:
        return {
            "kill chunk": lambda: self._chunk().kill(self._down_s()),
            "kill proxy": lambda: self._proxy().kill(self._down_s()),
            "kill master": lambda: self._cluster.master.process.kill(self._down_s()),
            "end": lambda: self._any().end(self._down_s()),
            "power cut": lambda: self._chunk().cut_power(self._down_s()),
            "group power cut": self._cut_group,
            "blackout": self._cut_all,
            "stop": self._stop,
            "cut": self._cut_link,
            "isolate": self._isolate,
            "rot": lambda: self._rng.choice(list(self._rotten.values())).flip_bits(self._rng.randint(1, 4)),
            "replace disk": self._replace_disk,
            "lose index": lambda: self._chunk().lose_index(self._down_s()),
            "fail sync": self._fail_sync,
            "slow disk": self._slow_disk,
            "stall": self._stall,
            "full disk": self._fill_disk,
            "clock": self._jump,
            "operator": self._compact,
        }

    def _set_network(self) -> None:
        rng, network = self._rng, self._world.network
        network.publish_loss = rng.choice([0.0, 0.0, 0.3, 1.0])
        network.doubles = rng.choice([0.0, 0.0, 0.1])
        network.loss = rng.choice([0.0, 0.0, 0.0, 0.01])
        network.tail_share = rng.choice([0.0, 0.02, 0.2])
        network.tail_s = rng.choice([0.05, 0.5, 2.5])
        network.reorders = rng.random() < 0.5

    def begin(self) -> None:
        """The first fault comes soon."""
        self._world.note("faults", *self.kinds)
        self._set_network()
        self._next()

    def _next(self) -> None:
        self._world.after(self._rng.uniform(*self._pause_s), self._strike)

    def _strike(self) -> None:
        if self.active:
            self._rng.choice(list(self.kinds.values()))()
            self._next()

    # --- whom -------------------------------------------------------------------------------------

    def _down_s(self) -> float:
        return self._rng.uniform(*DOWN_S)

    def _chunk(self) -> ChunkHost:
        return self._rng.choice(list(self._cluster.chunks.values()))

    def _proxy(self) -> Process:
        return self._rng.choice(self._cluster.proxies).process

    def _servers(self) -> list[Process]:
        return [p for p in self._world.processes.values() if p.kind != "client"]

    def _any(self) -> Process:
        return self._rng.choice(self._servers())

    # --- what -------------------------------------------------------------------------------------

    def _cut_group(self) -> None:
        for host in self._cluster.members(self._rng.choice(self._cluster.groups())):
            host.cut_power(self._down_s())

    def _cut_all(self) -> None:
        for host in self._cluster.chunks.values():
            host.cut_power(self._down_s())
        for process in self._servers():
            process.kill(self._down_s())

    def _stop(self) -> None:
        process = self._any()
        process.stop()
        self._world.after(self._rng.uniform(0.5, 14.0), process.go_on)

    def _cut_link(self) -> None:
        one, other = self._rng.sample(list(self._world.processes), 2)
        seconds = self._rng.uniform(0.5, 12.0)
        self._world.network.cut(one, other, seconds)
        if self._rng.random() < 0.6:
            self._world.network.cut(other, one, seconds)

    def _isolate(self) -> None:
        name, seconds = self._any().name, self._rng.uniform(0.5, 12.0)
        inward, outward = self._rng.choice([(True, True), (True, False), (False, True)])
        for other in [other for other in self._world.processes if other != name]:
            if outward:
                self._world.network.cut(name, other, seconds)
            if inward:
                self._world.network.cut(other, name, seconds)

    def _replace_disk(self) -> None:
        host = self._rng.choice(list(self._replaceable.values()))
        others = [other for other in self._cluster.members(host.group) if other is not host]
        # Two empty disks at once, or one while the others are behind, may lose data whatever one does.
        if self._cluster.is_group_writable(host.group) and all(other.process.alive for other in others):
            host.replace_disk(self._rng.uniform(0.1, 12.0))

    def _fail_sync(self) -> None:
        host = self._chunk()
        host.disk.fail_syncs = 1
        host.failed_syncs += 1
        self._world.note("next sync fails", host.name)
        if self._rng.random() < 0.5:
            # An operator sees it, and starts the server again.
            self._world.after(self._rng.uniform(1.0, 6.0), lambda: host.kill(0.2) if self.active else None)

    def _slow_disk(self) -> None:
        host = self._chunk()
        host.slowness = self._rng.choice([10.0, 100.0, 500.0])
        self._world.note("slow disk", host.name, host.slowness)
        self._world.after(self._rng.uniform(0.5, 8.0), lambda: setattr(host, "slowness", 1.0))

    def _stall(self) -> None:
        host = self._chunk()
        host.stall_s = self._rng.choice([2.0, 5.0, 30.0])
        self._world.note("stall", host.name, host.stall_s)

    def _fill_disk(self) -> None:
        host = self._chunk()
        disk = host.disk
        disk.capacity = disk._used() + self._rng.randrange(40_000)
        self._world.note("disk full", host.name)

        def make_room() -> None:
            disk.capacity = 64 * MIB

        self._world.after(self._rng.uniform(1.0, 8.0), make_room)

    def _jump(self) -> None:
        clocks: list[ChunkHost | MasterHost] = [*self._cluster.chunks.values(), self._cluster.master]
        host = self._rng.choice(clocks)
        host.wall_offset_s += self._rng.choice([-3600.0, 3600.0])
        self._world.note("clock jumps", host.process.name, host.wall_offset_s)

    def _compact(self) -> None:
        process = self._chunk().process
        if process.built is not None and process.stopped_at is None:
            upkeep = process.role._upkeep
            self._rng.choice([upkeep.compact_now, upkeep.scrub_now])(self._world.now)

    # --- the end ----------------------------------------------------------------------------------

    def heal(self) -> None:
        """Faults stop; what needs an operator gets one."""
        self.active = False
        self._world.note("healing")
        self._world.network.mend_all()
        if self._rng.random() < 0.3:
            self._cut_all()
        for host in self._cluster.chunks.values():
            host.slowness, host.stall_s = 1.0, 0.0
            host.disk.capacity, host.disk.fail_syncs = 64 * MIB, 0
            if host.failed_syncs:
                host.kill(None)
        for process in self._world.processes.values():
            process.go_on()
            process.start()
