"""A disk in memory that keeps the contract of ``fabric.node.disk`` and not one bit more.

``crash`` gives the disk as a power cut would leave it: what was synced, and of the rest (bytes and names) an
arbitrary subset, each write torn at an arbitrary byte.  Faults are switched on by attributes.

Two hooks let a test act between the calls of the code under test.  ``step`` is called before everything
that changes the disk, and may raise PowerCut; ``glance`` before every read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from fabric.errors import DiskFailed, NoSpace
from fabric.node.disk import Buffer


class PowerCut(Exception):
    """Raised by a hook: nothing of the code under test runs any more."""


class Change:
    """Something done to a file since its last sync."""

    def __init__(self, kind: str, offset: int, data: bytes = b"") -> None:
        self.kind, self.offset, self.data = kind, offset, data

    @property
    def size(self) -> int:
        """What ``Keep`` says when all of it survives."""
        return max(1, len(self.data))

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

    def pieces(self, piece_bytes: int) -> list[Change]:
        """A write as the sectors that it consists of; anything else as it is."""
        if self.kind != "write" or not piece_bytes:
            return [self]
        starts = range(0, len(self.data), piece_bytes)
        return [Change("write", self.offset + at, self.data[at : at + piece_bytes]) for at in starts]


class NameChange:
    """A name that was created, renamed or removed since the directory was synced."""

    data = b""
    size = 1

    def __init__(self, kind: str, name: str, to: str = "", inode: Inode | None = None) -> None:
        self.kind, self.name, self.to, self.inode = kind, name, to, inode

    def apply(self, names: dict[str, Inode]) -> None:
        if self.kind == "create":
            assert self.inode is not None
            names[self.name] = self.inode
        elif self.kind == "rename":
            assert self.inode is not None
            names.pop(self.name, None)
            names[self.to] = self.inode
        else:
            names.pop(self.name, None)


Keep = Callable[["Change | NameChange"], int]
"""How many bytes of an unsynced change survive; one that is not a write survives if not 0."""


def grow(content: bytearray, length: int) -> None:
    content.extend(bytes(max(0, length - len(content))))


class Inode:
    def __init__(self) -> None:
        self.durable = bytearray()
        self.content = bytearray()
        self.unsynced: list[Change] = []
        self.pages_lost = False
        """A sync has failed: ``content`` shows bytes that no disk will ever hold."""
        self.unreadable: list[tuple[int, int]] = []
        """Ranges whose reading fails: (first, behind the last)."""

    def change(self, change: Change) -> None:
        change.apply(self.content, change.size)
        self.unsynced.append(change)

    def sync(self) -> None:
        for change in self.unsynced:
            change.apply(self.durable, change.size)
        self.unsynced.clear()

    def lose(self, keep: Keep) -> None:
        """As Linux does it: the pages count as clean from now on, are readable and never written again."""
        for change in self.unsynced:
            if change.kind == "write":
                change.apply(self.durable, keep(change))
        self.unsynced = [change for change in self.unsynced if change.kind != "write"]
        self.pages_lost = True

    def on_disk(self) -> bytearray:
        """What a read would show if memory held only what will still be written."""
        content = bytearray(self.durable)
        for change in self.unsynced:
            change.apply(content, change.size)
        grow(content, len(self.content))
        return content

    def after_crash(self, keep: Keep, piece_bytes: int) -> Inode:
        survivor = Inode()
        content = bytearray(self.durable)
        for change in self.unsynced:
            for piece in change.pieces(piece_bytes):
                piece.apply(content, keep(piece))
        survivor.durable, survivor.content = bytearray(content), content
        survivor.unreadable = list(self.unreadable)
        return survivor


class Gate:
    """A sync that hangs in the disk until the test lets it go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(60), "nobody opened the gate"


class FakeFile:
    def __init__(self, disk: FakeDisk, name: str, inode: Inode) -> None:
        self._disk, self._name, self.inode = disk, name, inode
        self._closed = False

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(bytes(buffer) for buffer in buffers)
        self._begin("write", len(data))
        fits = self._disk.fitting_bytes(len(self.inode.content), offset, len(data))
        if self._disk.short_write_bytes is not None:
            fits = min(fits, self._disk.short_write_bytes)
            self.inode.change(Change("write", offset, data[:fits]))
            raise NoSpace("injected: no space left after a part")
        if self._disk.fail_writes:
            raise DiskFailed("injected: write failed")
        self.inode.change(Change("write", offset, data[:fits]))
        if fits < len(data):
            raise NoSpace("the fake disk is full")

    def pread(self, length: int, offset: int) -> bytes:
        self._check_open()
        self._disk.glance(f"read {self._name}")
        if self._disk.fail_reads:
            raise DiskFailed("injected: read failed")
        for start, end in self.inode.unreadable:
            if offset < end and start < offset + length:
                raise DiskFailed(f"injected: bytes {start} to {end} of {self._name} cannot be read")
        return bytes(self.inode.content[offset : offset + length])

    def fdatasync(self) -> None:
        self._begin("sync", 0)
        if self._disk.gate is not None:
            self._disk.gate.wait()
        if self._disk.fail_syncs:
            self._disk.fail_syncs -= 1
            self.inode.lose(self._disk.fail_sync_keep)
            raise DiskFailed("injected: fdatasync failed")
        self.inode.sync()

    def allocate(self, offset: int, length: int) -> None:
        self._check_open()
        self._disk.step(f"allocate {self._name}")
        size = len(self.inode.content)
        if self._disk.fitting_bytes(size, size, offset + length - size) < offset + length - size:
            raise NoSpace("the fake disk is full")
        self.inode.change(Change("allocate", offset + length))

    def truncate(self, length: int) -> None:
        self._check_open()
        self._disk.step(f"truncate {self._name}")
        self.inode.change(Change("truncate", length))

    def size(self) -> int:
        self._check_open()
        return len(self.inode.content)

    def forget(self, offset: int, length: int) -> None:
        self._check_open()
        self._disk.log.append(("forget", self._name, length))
        if self.inode.pages_lost:
            self.inode.content[offset : offset + length] = self.inode.on_disk()[offset : offset + length]

    def close(self) -> None:
        self._closed = True

    def _begin(self, what: str, count: int) -> None:
        self._check_open()
        self._disk.step(f"{what} {self._name}")
        self._disk.log.append((what, self._name, count))

    def _check_open(self) -> None:
        if self._closed:
            raise DiskFailed(f"{self._name} was used after it was closed")


class FakeDisk:
    def __init__(self, capacity: int = 2**34) -> None:
        self.capacity = capacity
        self.files: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.unsynced_names: list[NameChange] = []
        self.log: list[tuple[str, str, int]] = []
        """Every write, sync and directory sync, in order: (what, file, bytes)."""
        self.step: Callable[[str], None] = lambda what: None
        self.glance: Callable[[str], None] = lambda what: None
        self.fail_syncs = 0
        """So many of the next syncs fail, and the next ones succeed again."""
        self.fail_sync_keep: Keep = keep_nothing
        """What a failing sync still brings to the disk."""
        self.fail_directory_syncs = 0
        self.fail_writes = False
        self.fail_reads = False
        self.short_write_bytes: int | None = None
        self.gate: Gate | None = None
        """Where every sync waits."""
        self.hidden_free_bytes = 0
        """Taken away from what ``free_bytes`` reports."""

    def open(self, name: str) -> FakeFile:
        if name not in self.files:
            raise DiskFailed(f"{name}: no such file")
        return FakeFile(self, name, self.files[name])

    def create(self, name: str) -> FakeFile:
        if name in self.files:
            raise DiskFailed(f"{name}: exists")
        return self._name_changed(NameChange("create", name, inode=Inode()), name)

    def names(self) -> list[str]:
        return sorted(self.files)

    def rename(self, name: str, to: str) -> None:
        self._name_changed(NameChange("rename", name, to, self._inode(name)), to)

    def remove(self, name: str) -> None:
        self._inode(name)
        change = NameChange("remove", name)
        self.step(f"remove {name}")
        change.apply(self.files)
        self.unsynced_names.append(change)

    def sync_directory(self) -> None:
        self.step("sync directory")
        self.log.append(("sync directory", "", 0))
        if self.fail_directory_syncs:
            self.fail_directory_syncs -= 1
            raise DiskFailed("injected: fsync of the directory failed")
        for change in self.unsynced_names:
            change.apply(self.durable_names)
        self.unsynced_names.clear()

    def free_bytes(self) -> int:
        return max(0, self.capacity - self.used_bytes() - self.hidden_free_bytes)

    def capacity_bytes(self) -> int:
        return self.capacity

    def fitting_bytes(self, size: int, offset: int, length: int) -> int:
        """How many of ``length`` bytes at ``offset`` of a file of this size find room."""
        room = max(0, self.capacity - self.used_bytes())
        return max(0, min(length, size + room - offset))

    def used_bytes(self) -> int:
        """Taken by files."""
        return sum(len(inode.content) for inode in self.files.values())

    def _inode(self, name: str) -> Inode:
        if name not in self.files:
            raise DiskFailed(f"{name}: no such file")
        return self.files[name]

    def _name_changed(self, change: NameChange, name: str) -> FakeFile:
        self.step(f"{change.kind} {name}")
        change.apply(self.files)
        self.unsynced_names.append(change)
        return self.open(name)

    # --- crashes ----------------------------------------------------------------------------------

    def crash(self, keep: Keep | None = None, piece_bytes: int = 0) -> FakeDisk:
        """The disk after a power cut; this one stays as it is, so that it can be cut in several ways.

        ``keep``: what survives of an unsynced change; nothing by default.  With ``piece_bytes`` it is asked
        for every so many bytes of a write.
        """
        keep = keep or keep_nothing
        names = dict(self.durable_names)
        for change in self.unsynced_names:
            if keep(change):
                change.apply(names)
        survivors = {id(inode): inode.after_crash(keep, piece_bytes) for inode in names.values()}
        after = FakeDisk(self.capacity)
        after.files = {name: survivors[id(inode)] for name, inode in sorted(names.items())}
        after.durable_names = dict(after.files)
        return after

    def flip(self, name: str, offset: int, bit: int = 0) -> None:
        """Bitrot."""
        for content in (self.files[name].content, self.files[name].durable):
            if offset < len(content):
                content[offset] ^= 1 << bit

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        """Other bytes, as by a write that went to the wrong place; the file keeps its size."""
        for content in (self.files[name].content, self.files[name].durable):
            end = min(offset + len(data), len(content))
            content[offset:end] = data[: max(0, end - offset)]

    def cut(self, name: str, length: int) -> None:
        """Bytes lost from the end, as by a careless copy."""
        for content in (self.files[name].content, self.files[name].durable):
            del content[length:]

    def make_unreadable(self, name: str, start: int, end: int) -> None:
        """Reads of these bytes fail from now on."""
        self.files[name].unreadable.append((start, end))


def keep_nothing(change: Change | NameChange) -> int:
    """What a power cut leaves by default: what was synced."""
    return 0
