"""What operators do, and clocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.faults.scene import Scene
    from sim.hosts import ChunkHost, MasterHost


def jump_clock(scene: Scene) -> None:
    """The wall clock of a machine is set by an hour; it counts from the next start on."""
    clocks: list[ChunkHost | MasterHost] = [*scene.cluster.running(), scene.cluster.master]
    host = scene.rng.choice(clocks)
    host.wall_offset_s += scene.rng.choice([-3600.0, 3600.0])
    scene.world.note("clock jumps", host.process.name, host.wall_offset_s)


def compact_or_scrub(scene: Scene) -> None:
    """Now, on some server."""
    process = scene.chunk().process
    if process.alive and process.stopped_at is None:
        upkeep = process.role._upkeep
        scene.rng.choice([upkeep.compact_now, upkeep.scrub_now])(scene.world.now)


KINDS: dict[str, Callable[[Scene], None]] = {"clock": jump_clock, "operator": compact_or_scrub}
