"""A small cluster: a master, groups of chunk servers, proxies, clients."""

from __future__ import annotations

import random

from fabric.settings import KIB, Settings
from sim.history import History
from sim.hosts import ChunkHost, MasterHost, ProxyHost
from sim.workload import make_client
from sim.world import World

REPLICAS = 3
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
        compaction_garbage_ratio=rng.choice([0.05, 0.3]),
        tombstone_keep_s=rng.choice([20.0, 60.0]),
    )


class Cluster:
    """All processes of one run."""

    def __init__(self, world: World, groups: int = 2, proxies: int = 2, clients: int = 4) -> None:
        self.world = world
        self.settings = settings = small_settings(world.rng)
        self.history = History(world)
        self.late_groups = 0
        self.master = MasterHost(world, settings, REPLICAS)
        self.chunks = {
            name: ChunkHost(world, name, group, settings)
            for group in range(1, groups + 1)
            for name in (f"chunk-{group}{letter}" for letter in "abc"[:REPLICAS])
        }
        self.proxies = [ProxyHost(world, f"proxy-{n + 1}", settings) for n in range(proxies)]
        self.clients = [
            make_client(world, f"client-{n + 1}", [p.process.endpoint for p in self.proxies], self.history)
            for n in range(clients)
        ]
        hosts: list[MasterHost | ChunkHost | ProxyHost] = [
            self.master,
            *self.chunks.values(),
            *self.proxies,
        ]
        for process in [*(host.process for host in hosts), *(client.process for client in self.clients)]:
            world.add(process)

    def start(self) -> None:
        """Start everything; in some runs the last group comes when the others serve already."""
        late: set[str] = set()
        if len(self.groups()) > 1 and self.world.rng.random() < LATE_SHARE:
            hosts = self.members(self.groups()[-1])
            late = {host.name for host in hosts}
            for host in hosts:
                self.world.after(self.world.rng.uniform(*LATE_S), host.process.start)
        self.late_groups = len(late) // REPLICAS
        for process in self.world.processes.values():
            if process.name not in late:
                process.start()

    def is_begun(self) -> bool:
        """Is every group writable that was started at first?"""
        return all(map(self.is_group_writable, self.groups()[: len(self.groups()) - self.late_groups]))

    def members(self, group: int) -> list[ChunkHost]:
        """The machines of a group."""
        return [host for host in self.chunks.values() if host.group == group]

    def groups(self) -> list[int]:
        """Numbers of the groups."""
        return sorted({host.group for host in self.chunks.values()})

    def is_group_writable(self, group: int) -> bool:
        """Does the master, if it runs, hold this group for writable?"""
        if not self.master.process.alive:
            return False
        groups = self.master.process.role._groups
        found = groups.groups.get(group)
        return found is not None and found.record is not None and bool(groups.is_writable(found))

    def is_writable(self) -> bool:
        """Does the master hold every group for writable, and does every member and every proxy know it?"""
        if not all(map(self.is_group_writable, self.groups())):
            return False
        if not all(map(self._is_told_to_write, self.chunks.values())):
            return False
        for host in self.proxies:
            if not host.process.alive:
                return False
            view = host.process.role._context.view
            if len(view.writable_groups()) < len(self.groups()):
                return False
        return True

    def _is_told_to_write(self, host: ChunkHost) -> bool:
        if not host.process.alive or not self.master.process.alive:
            return False
        standing = host.process.role._standing
        record = self.master.process.role._groups.groups[host.group].record
        return bool(standing.mode == "RW" and standing.epoch == record.epoch)
