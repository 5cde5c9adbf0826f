"""A small cluster: a master, groups of chunk servers, proxies, clients."""

from __future__ import annotations

from fabric.settings import KIB, Settings
from sim.history import History
from sim.hosts import ChunkHost, MasterHost, ProxyHost
from sim.workload import make_client
from sim.world import World

REPLICAS = 3
SETTINGS = Settings(
    fid_range_count=40,
    fid_lease_s=16.0,
    delete_grace_s=3.0,
    proxy_inflight_bytes_max=48 * KIB,
    chunk_inflight_bytes_max=24 * KIB,
    data_file_bytes_max=64 * KIB,
    reserve_bytes=16 * KIB,
    checkpoint_bytes=16 * KIB,
    scrub_interval_s=15.0,
    tombstone_keep_s=60.0,
)
"""Everything small and soon, so that it happens within a run."""


class Cluster:
    """All processes of one run."""

    def __init__(self, world: World, groups: int = 2, proxies: int = 2, clients: int = 4) -> None:
        self.world = world
        self.settings = SETTINGS
        self.history = History(world)
        self.master = MasterHost(world, SETTINGS, REPLICAS)
        self.chunks = {
            name: ChunkHost(world, name, group, SETTINGS)
            for group in range(1, groups + 1)
            for name in (f"chunk-{group}{letter}" for letter in "abc"[:REPLICAS])
        }
        self.proxies = [ProxyHost(world, f"proxy-{n + 1}", SETTINGS) for n in range(proxies)]
        self.clients = [
            make_client(world, f"client-{n + 1}", [p.process.endpoint for p in self.proxies], self.history)
            for n in range(clients)
        ]
        hosts = [self.master, *self.chunks.values(), *self.proxies]
        for process in [*(host.process for host in hosts), *(client.process for client in self.clients)]:
            world.add(process)

    def start(self) -> None:
        """Start everything."""
        for process in self.world.processes.values():
            process.start()

    def members(self, group: int) -> list[ChunkHost]:
        """The machines of a group."""
        return [host for host in self.chunks.values() if host.group == group]

    def groups(self) -> list[int]:
        """Numbers of the groups."""
        return sorted({host.group for host in self.chunks.values()})

    def is_group_writable(self, group: int) -> bool:
        """Does the master, if it runs, hold this group for writable?"""
        built = self.master.process.built
        groups = built.role._groups if built is not None else None  # type: ignore[attr-defined]
        found = groups.groups.get(group) if groups is not None else None
        return found is not None and found.record is not None and groups.is_writable(found)

    def is_writable(self) -> bool:
        """Does the master hold every group for writable, and every proxy know it?"""
        if not all(map(self.is_group_writable, self.groups())):
            return False
        for host in self.proxies:
            if host.process.built is None:
                return False
            view = host.process.built.role._context.view  # type: ignore[attr-defined]
            if len(view.writable_groups()) < len(self.groups()):
                return False
        return True
