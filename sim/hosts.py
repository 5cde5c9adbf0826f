"""What runs on a simulated machine: disks outlive the processes that use them.

A process kill leaves the disk as the system has it.  A power cut takes what was not synced: any part of it.
A job that is interrupted has done its first steps on the disk, and nothing after.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

from fabric.chunk.engine import Engine
from fabric.chunk.jobs import ReadBatch, ScrubDone, ScrubJob, ScrubStatus, WriteBatch, count
from fabric.chunk.role import ChunkRole
from fabric.errors import DiskFailed, NoSpace
from fabric.master.role import MasterRole
from fabric.master.store import store_worker
from fabric.proxy.role import ProxyRole
from fabric.settings import MIB, Settings
from sim.crashes import keep_some
from sim.disk import FakeDisk, Keep, PowerCut, keep_nothing
from sim.index import MemoryIndexHome
from sim.process import Built, LaneSpec, Process
from sim.store import MemoryStore
from sim.world import START_S, WALL_S

if TYPE_CHECKING:
    from sim.world import World

MASTER = "tcp://master:7400"
STEPS_MAX = 12
"""An interrupted job does up to so many steps on the disk."""


def endpoint_of(server: str) -> str:
    """Where a chunk server or a proxy listens."""
    return f"tcp://{server}:7410"


class ChunkHost:
    """The machine of a chunk server."""

    def __init__(self, world: World, name: str, group: int, settings: Settings) -> None:
        self.world, self.name, self.group, self.settings = world, name, group, settings
        self.rng = random.Random(world.rng.getrandbits(64))
        self.disk = FakeDisk(capacity=64 * MIB)
        self.home = MemoryIndexHome()
        self.uuid = self.rng.randbytes(16)
        self.wall_offset_s = 0.0
        self.sync_s = (0.001, 0.005)
        self.slowness = 1.0
        self.stall_s = 0.0
        """The next write takes so much longer."""
        self.stalled_until = 0.0
        self.engine: Engine | None = None
        self.replaced_at = 0.0
        """When the disk was last replaced by an empty one."""
        self.flipped_at = 0.0
        self.flips = 0
        """On this disk."""
        self.largest_batch = 1
        """Items of a write batch."""
        self.failed_disk = False
        """Its process must be started again by an operator, after faults."""
        self.keeper: ChunkHost | None = None
        """The member of its group whose disk is never damaged; None: it is that one."""
        self.cut_at = ""
        """The machine goes dark at the next step on its disk that begins with this."""
        self.scrubs = True
        self.process = Process(world, name, endpoint_of(name), self._build, "chunk")

    def _build(self, process: Process) -> Built:
        self.disk.step = lambda what: None
        self.disk.log.clear()
        self.engine = engine = Engine(
            self.disk,
            self.home,
            uuid=self.uuid,
            settings=self.settings,
            rng=random.Random(self.rng.getrandbits(64)),
            wall_ms=lambda: int((WALL_S + self.world.now - START_S + self.wall_offset_s) * 1000),
        )
        role = ChunkRole(
            server=self.name,
            uuid=self.uuid.hex(),
            incarnation=self.rng.getrandbits(63),
            endpoint=process.endpoint,
            group=self.group,
            master=MASTER,
            settings=self.settings,
            rng=random.Random(self.rng.getrandbits(64)),
            version="sim",
        )
        lanes = {
            "write": LaneSpec(lambda job: self._run(engine, job), self._write_s),
            "read": LaneSpec(engine.run, self._read_s, self.settings.read_threads),
            "background": LaneSpec(lambda job: self._upkeep(engine, job), self._write_s),
        }
        return Built(role, lanes, lambda job: self._interrupt(engine, job), self._close)

    def _upkeep(self, engine: Engine, job: object) -> object:
        # A scrub is hundreds of small jobs: most runs do without.
        if self.scrubs or not isinstance(job, ScrubJob):
            return self._run(engine, job)
        return ScrubDone(ScrubStatus(), engine.status(), idle=True)

    def _run(self, engine: Engine, job: object) -> object:
        if not self.cut_at:
            return engine.run(job)

        def step(what: str) -> None:
            if what.startswith(self.cut_at):
                raise PowerCut(what)

        self.disk.step = step
        try:
            return engine.run(job)
        except PowerCut as cut:
            self.world.note("interrupted", self.name, type(job).__name__, str(cut))
            self.cut_power(self.rng.uniform(0.1, 8.0))
        finally:
            self.disk.step = lambda what: None
        return None

    def _write_s(self, job: object) -> float:
        if isinstance(job, WriteBatch):
            self.largest_batch = max(self.largest_batch, sum(map(count, job.items)))
        stall_s, self.stall_s = (self.stall_s, 0.0) if isinstance(job, WriteBatch) else (0.0, self.stall_s)
        duration_s = stall_s + self.rng.uniform(*self.sync_s) * self.slowness
        self.stalled_until = max(self.stalled_until, self.world.now + duration_s)
        return duration_s

    def _read_s(self, job: object) -> float:
        base = self.rng.uniform(0.0001, 0.0005)
        return base * self.slowness if isinstance(job, ReadBatch) else base

    def _interrupt(self, engine: Engine, job: object) -> None:
        left = self.rng.randrange(STEPS_MAX)

        def step(what: str) -> None:
            nonlocal left
            if left == 0:
                raise PowerCut(what)
            left -= 1

        self.disk.step = self.home.step = step
        try:
            engine.run(job)
        except PowerCut as cut:
            self.world.note("interrupted", self.name, type(job).__name__, str(cut))
        finally:
            self.disk.step = self.home.step = lambda what: None

    def _close(self) -> None:
        assert self.engine is not None
        with contextlib.suppress(DiskFailed, NoSpace):
            self.engine.close()

    # --- what happens to it -----------------------------------------------------------------------

    def kill(self, restart_after_s: float | None) -> None:
        """The process dies; the system keeps what it has written."""
        self.process.kill(restart_after_s)
        if self.home.current is not None:
            self.home.current.close()

    def cut_power(self, restart_after_s: float | None, keep: Keep | None = None) -> None:
        """The machine goes dark; ``keep`` says what is left of what was not synced, else chance does."""
        self.cut_at = ""
        self.process.kill(restart_after_s)
        self.world.note("power cut", self.name)
        keep = keep or self.rng.choice([keep_nothing, keep_some(self.rng)])
        self.disk = self.disk.crash(keep, piece_bytes=self.rng.choice([0, 512]))
        self.home = self.home.crash(self.rng.randint(0, self.home.unsynced))

    def lose_index(self, restart_after_s: float | None) -> None:
        """The index is damaged when the process starts again."""
        self.kill(restart_after_s)
        self.world.note("index lost", self.name)
        self.home.lost = True

    def replace_disk(self, restart_after_s: float | None) -> None:
        """An empty disk, and with it another server uuid."""
        self.process.kill(restart_after_s)
        self.world.note("disk replaced", self.name)
        self.disk, self.home = FakeDisk(capacity=self.disk.capacity), MemoryIndexHome()
        self.uuid = self.rng.randbytes(16)
        self.replaced_at = self.world.now
        self.flips = 0

    def holds(self, payload: bytes) -> bool:
        """Are these bytes on stable storage, in a file whose name is?"""
        return any(payload in inode.durable for inode in self.disk.durable_names.values())

    def live(self) -> dict[int, tuple[int, int]]:
        """fid -> length and checksum of what the running engine holds."""
        if self.engine is None or not self.process.alive:
            return {}
        rows = self.engine._index.scan()
        return {fid: (entry.length, entry.checksum) for fid, entry in rows if not entry.is_tombstone}


class MasterHost:
    """The machine of the master.  Its store is durable when a write returns."""

    def __init__(self, world: World, settings: Settings, replicas: int) -> None:
        self.world, self.settings, self.replicas = world, settings, replicas
        self.rng = random.Random(world.rng.getrandbits(64))
        self.store = MemoryStore()
        self.wall_offset_s = 0.0
        self.started_at = 0.0
        self.write_s = (0.0005, 0.004)
        self.slowness = 1.0
        self.process = Process(world, "master", MASTER, self._build, "master")

    def _build(self, process: Process) -> Built:
        self.started_at = self.world.now
        role = MasterRole(
            store=self.store,
            settings=self.settings,
            rng=random.Random(self.rng.getrandbits(64)),
            replicas=self.replicas,
            wall_offset_s=WALL_S - START_S + self.wall_offset_s,
            version="sim",
        )
        run = store_worker(self.store)
        lane = LaneSpec(run, lambda job: self.rng.uniform(*self.write_s) * self.slowness)
        return Built(role, {"store": lane}, lambda job: (run(job), None)[1])


class ProxyHost:
    """The machine of a proxy."""

    def __init__(self, world: World, name: str, settings: Settings) -> None:
        self.world, self.name, self.settings = world, name, settings
        self.rng = random.Random(world.rng.getrandbits(64))
        self.process = Process(world, name, endpoint_of(name), self._build, "proxy")

    def _build(self, process: Process) -> Built:
        rng = random.Random(self.rng.getrandbits(64))
        return Built(ProxyRole(name=self.name, master=MASTER, settings=self.settings, rng=rng, version="sim"))
