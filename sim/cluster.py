"""A small cluster: a master, groups of chunk servers, proxies, clients."""

from __future__ import annotations

import random
from typing import Any

from fabric.settings import KIB, Settings
from sim.history import History
from sim.hosts import ChunkHost, MasterHost, ProxyHost
from sim.keepers import make_keeper
from sim.operator import make_operator
from sim.roster import Roster
from sim.workload import make_client
from sim.world import World

REPLICAS = 3
SPARES = 2
KEEPERS = 2
LATE_SHARE = 0.2
LATE_S = (3.0, 12.0)


def small_settings(rng: random.Random) -> Settings:
    """Everything small and soon, so that it happens within a run."""
    return Settings(
        fid_range_count=40,
        fid_lease_s=16.0,
        delete_grace_s=3.0,
        proxy_inflight_bytes_max=48 * KIB,
        chunk_inflight_bytes_max=24 * KIB,
        data_file_bytes_max=rng.choice([8, 16, 64]) * KIB,
        reserve_bytes=16 * KIB,
        checkpoint_bytes=rng.choice([4, 16, 1024]) * KIB,
        scrub_interval_s=15.0,
        audit_interval_s=rng.choice([20.0, *[900.0] * 31]),
        compaction_garbage_ratio=rng.choice([0.05, 0.3]),
        min_write_replicas=rng.choice([0, 0, 2]),
        tombstone_keep_s=rng.choice([20.0, 60.0]),
    )


class Cluster:
    """All processes of one run.

    Beside the groups that it begins with there are machines in reserve, which an operator may start: those
    of one more group, and spares that can take the place of others.
    """

    def __init__(self, world: World, groups: int = 2, proxies: int = 2, clients: int = 4) -> None:
        self.world = world
        self.settings = settings = small_settings(world.rng)
        self.roster = Roster()
        self.roster.attach(self)
        world.watchers.add(self.roster)
        self.history = History(world)
        self.late_groups = 0
        self.searched = False
        """Were orphans searched for after everything else?"""
        self.first_groups = list(range(1, groups + 1))
        self.reserve_group = groups + 1
        self.master = MasterHost(world, settings, REPLICAS)
        self.chunks = {
            name: ChunkHost(world, name, group, settings)
            for group in range(1, groups + 2)
            for name in (f"chunk-{group}{letter}" for letter in "abc"[:REPLICAS])
        }
        self.spares = [ChunkHost(world, f"spare-{n + 1}", 1, settings) for n in range(SPARES)]
        for host in [*self.spares, *self.configured(self.reserve_group)]:
            self.chunks[host.name] = host
            host.process.wanted = False
        self.proxies = [ProxyHost(world, f"proxy-{n + 1}", settings) for n in range(proxies)]
        self.operator = make_operator(world)
        self.clients = [
            make_client(world, f"client-{n + 1}", [p.process.endpoint for p in self.proxies], self.history)
            for n in range(clients)
        ]
        self.keepers = [
            make_keeper(world, n + 1, [p.process.endpoint for p in self.proxies], self.history)
            for n in range(KEEPERS)
        ]
        self._add_all()

    def _add_all(self) -> None:
        hosts: list[MasterHost | ChunkHost | ProxyHost] = [
            self.master,
            *self.chunks.values(),
            *self.proxies,
        ]
        roles = [self.operator, *self.clients, *self.keepers]
        for process in [*(host.process for host in hosts), *(role.process for role in roles)]:
            self.world.add(process)

    def start(self) -> None:
        """Start everything; in some runs the last group comes when the others serve already."""
        late: set[str] = set()
        if len(self.first_groups) > 1 and self.world.rng.random() < LATE_SHARE:
            hosts = self.configured(self.first_groups[-1])
            late = {host.name for host in hosts}
            for host in hosts:
                self.world.after(self.world.rng.uniform(*LATE_S), host.process.start)
        self.late_groups = len(late) // REPLICAS
        for process in self.world.processes.values():
            if process.name not in late and process.wanted:
                process.start()

    def is_begun(self) -> bool:
        """Is every group writable that was started at first?"""
        early = self.first_groups[: len(self.first_groups) - self.late_groups]
        return all(map(self.is_group_open, early))

    # --- who there is -----------------------------------------------------------------------------

    def configured(self, group: int) -> list[ChunkHost]:
        """The machines that were set up for a group."""
        return [host for host in self.chunks.values() if host.group == group and host not in self.spares]

    def running(self) -> list[ChunkHost]:
        """The machines that are in use, whether their processes are alive or not."""
        return [host for host in self.chunks.values() if host.process.wanted]

    def groups(self) -> list[int]:
        """Numbers of the groups whose machines are in use."""
        return sorted({host.group for host in self.running()})

    def members(self, group: int, epoch: int = 0) -> list[ChunkHost]:
        """The machines of a group in one of its writable epochs; 0: in the newest."""
        names = self.roster.writers(group, epoch)
        return [self.chunks[name] for name in names] if names else self.configured(group)

    # --- how it is --------------------------------------------------------------------------------

    @property
    def masters_groups(self) -> dict[int, Any]:
        """Groups as the master has them; empty when it does not run."""
        return self.master.process.role._groups.groups if self.master.process.alive else {}

    def is_group_open(self, group: int) -> bool:
        """Does the master, if it runs, hold that all members of this group take writes?"""
        found = self.masters_groups.get(group)
        if found is None or found.record is None:
            return False
        return bool(self.master.process.role._groups.is_open(found))

    def is_group_whole(self, group: int) -> bool:
        """The same, and no member is missing that it began with or was given."""
        return self.is_group_open(group) and not self.masters_groups[group].learners

    def is_writable(self) -> bool:
        """Is every group whole, and does every member and every proxy know it?"""
        if not all(map(self.is_group_whole, self.groups())):
            return False
        if not all(map(self._is_told_to_write, self.groups())):
            return False
        groups = self.master.process.role._groups
        writable = {number for number, found in groups.groups.items() if groups.is_writable(found)}
        for host in self.proxies:
            if not host.process.alive:
                return False
            view = host.process.role._context.view
            if not writable <= {found.group for found in view.writable_groups()}:
                return False
        return True

    def _is_told_to_write(self, group: int) -> bool:
        record = self.masters_groups[group].record
        for name in record.members:
            process = self.chunks[name].process
            if not process.alive:
                return False
            standing = process.role._standing
            if standing.mode != "RW" or standing.epoch != record.epoch:
                return False
        return True
