"""Damage to what lies on a chunk server's disk: bits that flip, blocks in the wrong place, lost sectors.

Not where the keeper of the group lacks the fragment, unless audits are frequent.  Such a one was never
acknowledged; if it rots before it was copied nobody has it, and its group waits for its members to be equal
until an audit frees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fabric.chunk.data_file import file_name

if TYPE_CHECKING:
    from fabric.chunk.index import Entry
    from sim.hosts import ChunkHost

SECTOR_BYTES = 64
FREQUENT_AUDIT_S = 30.0


def flip_bits(host: ChunkHost, count: int) -> None:
    """Bitrot somewhere in what was written."""
    for _ in range(count):
        names = [name for name in host.disk.names() if any(host.disk.files[name].durable)]
        if not names:
            return
        name = host.rng.choice(names)
        offset = host.rng.randrange(len(host.disk.files[name].durable.rstrip(b"\0")))
        if not _may_damage(host, name, offset, offset + 1):
            continue
        host.world.note("bit flipped", host.name, name, offset)
        host.disk.flip(name, offset, host.rng.randrange(8))
        _damaged(host)


def misplace_block(host: ChunkHost) -> None:
    """One record, or the beginning of it, lies where another should be."""
    entries = _live(host)
    if not entries:
        return
    target = host.rng.choice(entries)
    sources = [entry for entry in entries if entry.file == target.file and entry.offset != target.offset]
    name = file_name(target.file)
    if not sources or not _may_damage(host, name, target.offset, target.offset + target.record_bytes):
        return
    source = host.rng.choice(sources)
    length = min(source.record_bytes, target.record_bytes)
    block = bytes(host.disk.files[name].durable[source.offset : source.offset + length])
    host.world.note("stale block", host.name, name, source.offset, "->", target.offset)
    host.disk.overwrite(name, target.offset, block)
    _damaged(host)


def lose_sector(host: ChunkHost) -> None:
    """A place within a record that cannot be read from now on."""
    entries = _live(host)
    if not entries:
        return
    entry = host.rng.choice(entries)
    start = entry.offset + host.rng.randrange(entry.record_bytes)
    end = min(start + SECTOR_BYTES, entry.offset + entry.record_bytes)
    name = file_name(entry.file)
    if _may_damage(host, name, start, end):
        host.world.note("unreadable", host.name, name, start, end)
        host.disk.make_unreadable(name, start, end)
        _damaged(host)


def has_unreadable(host: ChunkHost) -> bool:
    """Is there a place that cannot be read?"""
    return any(inode.unreadable for inode in host.disk.files.values())


def reallocate_sectors(host: ChunkHost) -> None:
    """They can be read again, and hold zeros."""
    for name, inode in host.disk.files.items():
        for start, end in inode.unreadable:
            host.world.note("reallocated", host.name, name, start, end)
            host.disk.overwrite(name, start, bytes(end - start))
            host.flipped_at = host.world.now
        inode.unreadable.clear()


def _damaged(host: ChunkHost) -> None:
    host.flipped_at = host.world.now
    host.flips += 1


def _live(host: ChunkHost) -> list[Entry]:
    if host.engine is None or not host.process.alive:
        return []
    return [entry for _, entry in host.engine._index.scan() if not entry.is_tombstone]


def _may_damage(host: ChunkHost, name: str, start: int, end: int) -> bool:
    """Does the keeper hold every fragment that lies there, or will an audit soon find what it lacks?"""
    if host.engine is None or host.keeper is None:
        return False
    if not host.process.alive or not host.keeper.process.alive:
        return False
    if host.settings.audit_interval_s <= FREQUENT_AUDIT_S:
        return True
    held = host.keeper.live()
    for fid, entry in host.engine._index.scan():
        if entry.is_tombstone or file_name(entry.file) != name:
            continue
        if entry.offset < end and start < entry.offset + entry.record_bytes and fid not in held:
            return False
    return True
