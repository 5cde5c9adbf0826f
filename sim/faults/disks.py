"""Disks that rot, fail, are full, slow or replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fabric.settings import MIB
from sim import damage

if TYPE_CHECKING:
    from sim.faults.scene import Scene
    from sim.hosts import ChunkHost

FLIPS_MAX = 4


def rot(scene: Scene) -> None:
    """Some bits of one machine."""
    damage.flip_bits(scene.rng.choice(scene.rotten), scene.rng.randint(1, FLIPS_MAX))


def rot_all(scene: Scene) -> None:
    """Of every machine that rots at all, at once: of some groups that is two of three."""
    for host in scene.rotten:
        damage.flip_bits(host, scene.rng.randint(1, FLIPS_MAX))


def stale_block(scene: Scene) -> None:
    """A write that went to the wrong place: whole bytes, of something else."""
    damage.misplace_block(scene.rng.choice(scene.rotten))


def unreadable(scene: Scene) -> None:
    """A place that the disk cannot read any more."""
    damage.lose_sector(scene.rng.choice(scene.rotten))


def replace_disk(scene: Scene) -> None:
    """An empty disk under the same name."""
    _replace(scene)


def replace_disk_under_rot(scene: Scene) -> None:
    """And while it is filled again, one of its two sources rots."""
    host = _replace(scene)
    if host is None:
        return
    source = next(other for other in scene.rotten if other.group == host.group)
    for _ in range(scene.rng.randint(1, 3)):
        scene.world.after(
            scene.rng.uniform(0.0, 12.0), lambda: damage.flip_bits(source, 2) if scene.active else None
        )


def _replace(scene: Scene) -> ChunkHost | None:
    if not scene.replaceable:
        return None
    host, empty_s = scene.rng.choice(scene.replaceable), scene.rng.uniform(0.1, 12.0)
    members = scene.cluster.members(host.group)
    # Two empty disks at once, or one while the others are behind, may lose data whatever one does.
    is_safe = host in members and scene.cluster.is_group_whole(host.group)
    if is_safe and all(other.process.alive for other in members):
        host.replace_disk(empty_s)
        return host
    return None


def lose_index(scene: Scene) -> None:
    scene.chunk().lose_index(scene.down_s())


def fail_sync(scene: Scene) -> None:
    """The next fdatasync fails, and those after it succeed."""
    host, restart_s = scene.chunk(), scene.rng.uniform(1.0, 6.0)
    host.disk.fail_syncs = 1
    host.failed_disk = True
    scene.world.note("next sync fails", host.name)
    if scene.rng.random() < 0.5:
        # An operator sees it, and starts the server again.
        scene.world.after(restart_s, lambda: host.kill(0.2) if scene.active else None)


def slow_disk(scene: Scene) -> None:
    host = scene.chunk()
    host.slowness = scene.rng.choice([10.0, 100.0, 500.0])
    scene.world.note("slow disk", host.name, host.slowness)
    scene.world.after(scene.rng.uniform(0.5, 8.0), lambda: setattr(host, "slowness", 1.0))


def stall(scene: Scene) -> None:
    """The next fdatasync takes long, up to half a minute."""
    host = scene.chunk()
    host.stall_s = scene.rng.choice([2.0, 5.0, 30.0])
    scene.world.note("stall", host.name, host.stall_s)


def full_disk(scene: Scene) -> None:
    """No room for data, or for the index, or for neither."""
    host = scene.chunk()
    data, index = scene.rng.choice([(True, False), (True, False), (True, True), (False, True)])
    if data:
        host.disk.capacity = host.disk.used_bytes() + scene.rng.randrange(40_000)
    if index:
        # What the index has not heard of, a start finds in the data files.
        host.home.full = host.failed_disk = True
    scene.world.note("disk full", host.name, "data" if data else "", "index" if index else "")

    def make_room() -> None:
        host.disk.capacity, host.home.full = 64 * MIB, False

    scene.world.after(scene.rng.uniform(1.0, 8.0), make_room)


def power_cut_at_roll(scene: Scene) -> None:
    """The machine goes dark while it makes a new data file."""
    host = scene.chunk()
    host.cut_at = scene.rng.choice(["create", "allocate", "sync directory", "rename", "remove"])
    scene.world.note("power cut at", host.name, host.cut_at)


def mend_unreadable(host: ChunkHost) -> None:
    """An operator's answer to places that cannot be read: the disk gives them others, or is replaced.

    Not replaced where a group goes on without all members: the others may not have everything.
    """
    if not damage.has_unreadable(host):
        return
    if not host.settings.min_write_replicas and host.rng.random() < 0.5:
        host.replace_disk(None)
    else:
        damage.reallocate_sectors(host)
        host.failed_disk = True


KINDS: dict[str, Callable[[Scene], None]] = {
    "rot": rot,
    "rot everywhere": rot_all,
    "stale block": stale_block,
    "unreadable": unreadable,
    "replace disk": replace_disk,
    "replace disk under rot": replace_disk_under_rot,
    "lose index": lose_index,
    "fail sync": fail_sync,
    "slow disk": slow_disk,
    "stall": stall,
    "full disk": full_disk,
    "power cut at roll": power_cut_at_roll,
}
