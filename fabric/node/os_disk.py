"""The real disk: one directory of the operating system.  Contract: ``fabric.node.disk``.

**Why a large write goes to the disk in parts.**  The system copies what is written and begins to write it
out when ``fdatasync`` asks for it: first the processor works, then the disk.  Told after every part to
begin with that one, it does both at the same time.  That is a hint and nothing hangs on it: whether
the bytes are safe, ``fdatasync`` alone says, also when writing out a part has failed before.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fabric.errors import DiskFailed, FabricError, NoSpace
from fabric.node.disk import Buffer
from fabric.node.pieces import BUFFERS_PER_CALL_MAX, PIECE_BYTES, cut
from fabric.settings import MIB

LOCK_NAME = "LOCK"
PART_BYTES = 2 * MIB
"""Parts of a large write have at least this size; a smaller write is left to ``fdatasync``."""
CLOSED = -1

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_ALLOCATE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class _translated:
    """Turn OSError into the fabric's errors.

    Written out, as it stands around every access: ``contextlib`` makes one several times as expensive.
    """

    __slots__ = ("_path", "_verb")

    def __init__(self, verb: str, path: Path) -> None:
        self._verb = verb
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, FabricError):
            reason = NoSpace if error.errno in _FULL else DiskFailed
            raise reason(f"{self._verb} {self._path}: {error.strerror}") from error


class OsFile:
    """An open file descriptor."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._fd = CLOSED
        with _translated("open", path):
            self._fd = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC, 0o644)

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        with _translated("write", self._path):
            for part in _parts(buffers):
                length = self._write_some(part, offset)
                if length >= PART_BYTES:
                    _begin_writing_out(self._fd, offset, length)
                offset += length

    def _write_some(self, buffers: Sequence[Buffer], offset: int) -> int:
        """Write all of these, a piece at a time; returns their bytes."""
        total = sum(map(len, buffers))
        if total <= PIECE_BYTES:
            return self._write_piece(buffers, offset, total)
        position = offset
        for piece in cut(buffers):
            position += self._write_piece(piece, position, sum(map(len, piece)))
            os.sched_yield()
        return total

    def _write_piece(self, buffers: Sequence[Buffer], offset: int, total: int) -> int:
        """Write all ``total`` bytes of these, however often the system writes only a part."""
        written = os.pwritev(self._fd, buffers, offset)
        while written < total:
            rest = _skip(buffers, written)
            more = os.pwritev(self._fd, rest, offset + written)
            if more == 0:
                raise OSError(errno.ENOSPC, "nothing more was written")
            written += more
        return total

    def pread(self, length: int, offset: int) -> bytes:
        with _translated("read", self._path):
            data = os.pread(self._fd, length, offset)
            if len(data) == length or not data:
                return data
            parts = [data]
            position, end = offset + len(data), offset + length
            while position < end and (data := os.pread(self._fd, end - position, position)):
                parts.append(data)
                position += len(data)
            return b"".join(parts)

    def fdatasync(self) -> None:
        with _translated("fdatasync", self._path):
            os.fdatasync(self._fd)

    def allocate(self, offset: int, length: int) -> None:
        with _translated("allocate", self._path):
            try:
                os.posix_fallocate(self._fd, offset, length)
            except OSError as error:
                if error.errno not in _NO_ALLOCATE:
                    raise
                if self.size() < offset + length:
                    os.ftruncate(self._fd, offset + length)

    def truncate(self, length: int) -> None:
        with _translated("truncate", self._path):
            os.ftruncate(self._fd, length)

    def size(self) -> int:
        with _translated("stat", self._path):
            return os.fstat(self._fd).st_size

    def forget(self, offset: int, length: int) -> None:
        with _translated("forget", self._path):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        fd, self._fd = self._fd, CLOSED
        if fd != CLOSED:
            os.close(fd)

    def __del__(self) -> None:
        # A file that compaction has removed is closed by its last reader, whoever that is: a descriptor that
        # was closed earlier might by then be another file's.
        self.close()


def _parts(buffers: Sequence[Buffer]) -> Iterator[Sequence[Buffer]]:
    """Cut a write into parts that one call of the system takes, each ending where it is large enough."""
    first = size = 0
    for position, buffer in enumerate(buffers, start=1):
        size += len(buffer)
        if size >= PART_BYTES or position - first == BUFFERS_PER_CALL_MAX:
            yield buffers[first:position]
            first, size = position, 0
    if first < len(buffers):
        yield buffers[first:]


_SYNC_FILE_RANGE_WRITE = 2
_sync_file_range: Any = getattr(ctypes.CDLL(None), "sync_file_range", None)
"""Of Linux's C library; None where there is no such call."""
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def _begin_writing_out(fd: int, offset: int, length: int) -> None:
    """Have the disk begin with these bytes, without waiting; what becomes of them, ``fdatasync`` says."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def _skip(buffers: Sequence[Buffer], count: int) -> list[Buffer]:
    """The buffers without their first ``count`` bytes."""
    rest: list[Buffer] = []
    for buffer in buffers:
        if count >= len(buffer):
            count -= len(buffer)
        else:
            rest.append(memoryview(buffer)[count:] if count else buffer)
            count = 0
    return rest


class OsDisk:
    """A directory that belongs to one process at a time, by a lock on its ``LOCK`` file."""

    def __init__(self, directory: Path) -> None:
        """Create the directory if need be (durably), and lock it.

        Raises DiskFailed when another process holds the lock, or the directory cannot be used.
        """
        self.directory = directory
        with _translated("create", directory):
            make_directory(directory)
        with _translated("open", directory):
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            lock_path = directory / LOCK_NAME
            self._lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise DiskFailed(f"{directory} is in use by another process (its LOCK file is held)") from error

    def open(self, name: str) -> OsFile:
        return OsFile(self.directory / name, 0)

    def create(self, name: str) -> OsFile:
        return OsFile(self.directory / name, os.O_CREAT | os.O_EXCL)

    def names(self) -> list[str]:
        with _translated("list", self.directory):
            return sorted(name for name in os.listdir(self.directory) if name != LOCK_NAME)

    def rename(self, name: str, to: str) -> None:
        with _translated("rename", self.directory / name):
            os.rename(self.directory / name, self.directory / to)

    def remove(self, name: str) -> None:
        with _translated("remove", self.directory / name):
            os.unlink(self.directory / name)

    def sync_directory(self) -> None:
        with _translated("fsync", self.directory):
            os.fsync(self._fd)

    def free_bytes(self) -> int:
        with _translated("statvfs", self.directory):
            stat = os.fstatvfs(self._fd)
        return stat.f_bavail * stat.f_frsize

    def capacity_bytes(self) -> int:
        with _translated("statvfs", self.directory):
            stat = os.fstatvfs(self._fd)
        return stat.f_blocks * stat.f_frsize

    def close(self) -> None:
        """Give the directory up.  Its files are closed by who opened them."""
        os.close(self._lock)
        os.close(self._fd)


def make_directory(directory: Path) -> None:
    """Create a directory and its parents so that their names survive a power cut.  Raises OSError."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable.  Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, content: bytes) -> None:
    """Create or replace a small file: after a power cut it holds the old content or the new one.

    Raises NoSpace, DiskFailed.
    """
    temporary = path.with_name(path.name + ".new")
    with _translated("write", path):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
        sync_directory(path.parent)
