"""A disk in memory that keeps the contract of ``fabric.node.disk`` and not one bit more.

``crash`` gives the disk as a power cut would leave it: what was synced, and of the rest an arbitrary
subset, each write torn at an arbitrary byte.  Faults are switched on by attributes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from fabric.errors import DiskFailed, NoSpace
from fabric.node.disk import Buffer

Keep = Callable[["Change"], int]
"""How many bytes of an unsynced change survive; a change that is not a write survives if not 0."""


class Change:
    """Something done to a file since its last sync."""

    def __init__(self, kind: str, offset: int, data: bytes = b"") -> None:
        self.kind, self.offset, self.data = kind, offset, data

    def apply(self, content: bytearray, kept_bytes: int) -> None:
        if self.kind == "write":
            data = self.data[:kept_bytes]
            if data:
                grow(content, self.offset + len(data))
                content[self.offset : self.offset + len(data)] = data
        elif kept_bytes and self.kind == "truncate":
            del content[self.offset :]
            grow(content, self.offset)
        elif kept_bytes:
            grow(content, self.offset)


def grow(content: bytearray, length: int) -> None:
    content.extend(bytes(max(0, length - len(content))))


class Inode:
    def __init__(self) -> None:
        self.durable = bytearray()
        self.content = bytearray()
        self.unsynced: list[Change] = []

    def change(self, change: Change) -> None:
        change.apply(self.content, max(1, len(change.data)))
        self.unsynced.append(change)


class FakeFile:
    def __init__(self, disk: FakeDisk, name: str, inode: Inode) -> None:
        self._disk, self._name, self.inode = disk, name, inode
        self.syncs = 0

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(bytes(buffer) for buffer in buffers)
        self._disk.log.append(("write", self._name, len(data)))
        room = self._disk.room(len(self.inode.content), offset + len(data))
        if self._disk.short_write_bytes is not None:
            self.inode.change(Change("write", offset, data[: self._disk.short_write_bytes]))
            raise NoSpace("injected: no space left after a part")
        if not room:
            raise NoSpace("the fake disk is full")
        if self._disk.fail_writes:
            raise DiskFailed("injected: write failed")
        self.inode.change(Change("write", offset, data))

    def pread(self, length: int, offset: int) -> bytes:
        if self._disk.fail_reads:
            raise DiskFailed("injected: read failed")
        return bytes(self.inode.content[offset : offset + length])

    def fdatasync(self) -> None:
        self._disk.log.append(("sync", self._name, 0))
        if self._disk.fail_syncs:
            self._disk.fail_syncs -= 1
            # What Linux does: the pages count as clean from now on, readable and never written again.
            self.inode.unsynced = [change for change in self.inode.unsynced if change.kind != "write"]
            raise DiskFailed("injected: fdatasync failed")
        for change in self.inode.unsynced:
            change.apply(self.inode.durable, max(1, len(change.data)))
        self.inode.unsynced.clear()

    def allocate(self, offset: int, length: int) -> None:
        if not self._disk.room(len(self.inode.content), offset + length):
            raise NoSpace("the fake disk is full")
        self.inode.change(Change("allocate", offset + length))

    def truncate(self, length: int) -> None:
        self.inode.change(Change("truncate", length))

    def size(self) -> int:
        return len(self.inode.content)

    def forget(self, offset: int, length: int) -> None:
        pass

    def close(self) -> None:
        pass


class FakeDisk:
    def __init__(self, capacity: int = 2**34) -> None:
        self.capacity = capacity
        self.files: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.log: list[tuple[str, str, int]] = []
        """Every write, sync and directory sync, in order: (what, file, bytes)."""
        self.fail_syncs = 0
        self.fail_writes = False
        self.fail_reads = False
        self.short_write_bytes: int | None = None
        self.hidden_free_bytes = 0
        """Taken away from what ``free_bytes`` reports."""

    def open(self, name: str) -> FakeFile:
        if name not in self.files:
            raise DiskFailed(f"{name}: no such file")
        return FakeFile(self, name, self.files[name])

    def create(self, name: str) -> FakeFile:
        if name in self.files:
            raise DiskFailed(f"{name}: exists")
        self.files[name] = Inode()
        return self.open(name)

    def names(self) -> list[str]:
        return sorted(self.files)

    def rename(self, name: str, to: str) -> None:
        if name not in self.files:
            raise DiskFailed(f"{name}: no such file")
        self.files[to] = self.files.pop(name)

    def remove(self, name: str) -> None:
        if name not in self.files:
            raise DiskFailed(f"{name}: no such file")
        del self.files[name]

    def sync_directory(self) -> None:
        self.log.append(("sync directory", "", 0))
        self.durable_names = dict(self.files)

    def free_bytes(self) -> int:
        return max(0, self.capacity - self._used() - self.hidden_free_bytes)

    def capacity_bytes(self) -> int:
        return self.capacity

    def room(self, old_size: int, new_size: int) -> bool:
        return self._used() + max(0, new_size - old_size) <= self.capacity

    def _used(self) -> int:
        return sum(len(inode.content) for inode in self.files.values())

    # --- crashes ----------------------------------------------------------------------------------

    def crash(self, keep: Keep = lambda change: 0) -> FakeDisk:
        """The disk after a power cut.  ``keep``: what survives of an unsynced change; nothing by default."""
        after = FakeDisk(self.capacity)
        for name, inode in self.durable_names.items():
            content = bytearray(inode.durable)
            for change in inode.unsynced:
                change.apply(content, keep(change))
            survivor = Inode()
            survivor.durable, survivor.content = bytearray(content), content
            after.files[name] = survivor
        after.durable_names = dict(after.files)
        return after

    def flip(self, name: str, offset: int, bit: int = 0) -> None:
        """Bitrot."""
        for content in (self.files[name].content, self.files[name].durable):
            if offset < len(content):
                content[offset] ^= 1 << bit

    def cut(self, name: str, length: int) -> None:
        """Bytes lost from the end, as by a careless copy."""
        for content in (self.files[name].content, self.files[name].durable):
            del content[length:]


def keep_some(rng: random.Random) -> Keep:
    """Any subset survives, torn anywhere."""

    def keep(change: Change) -> int:
        return rng.choice([0, len(change.data) or 1, rng.randint(0, max(1, len(change.data)))])

    return keep
