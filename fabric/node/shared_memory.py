"""Payloads that stay where they are: a reader on the same machine is told the place in memory.

A fragment that is pushed passes four sockets, one to the proxy and one to each replica, and each costs
two copies and the kernel's pages for them.  Where its sender has put it into a memory file
(``memfd_create``), only the name ``/proc/<process>/fd/<number>`` travels, and whoever needs the bytes reads
them there.

Nothing is trusted but the checksum that comes with every payload: the bytes are copied out first and
verified then.  So a sender may use its memory for something else at any time; who reads late finds other
bytes, which do not match, or no file.  And nothing but such a memory file is ever opened, whatever a
message names.

Whether a peer can read ours is found out by asking it to (``ProbeMemory``), once in every connection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from fabric.errors import MemoryGone
from fabric.node.effects import Unread
from fabric.node.host import host_id
from fabric.node.pieces import PIECE_BYTES
from fabric.wire.messages import ProbeMemory

NAME = "speedy-fabric"
"""Of the memory files, as the system shows it."""
FILE_BYTES_MAX = 64
"""Length of a file's name."""

_FILE = re.compile(r"/proc/[0-9]{1,10}/fd/[0-9]{1,10}", re.ASCII)
_TARGET = f"/memfd:{NAME} (deleted)"
_PROBE_MS = 5000


class SharedBytes(Unread):
    """The first ``length`` bytes of a memory file of some process on this machine."""

    def __init__(self, file: str, length: int) -> None:
        self.file = file
        self._length = length
        self._joined: bytes | None = None

    def __len__(self) -> int:
        return self._length

    def load(self) -> Iterator[bytes]:
        """The bytes, copied.  Raises MemoryGone."""
        descriptor = _open(self.file)
        try:
            for position in range(0, self._length, PIECE_BYTES):
                yield _read(descriptor, min(PIECE_BYTES, self._length - position), position, self.file)
                os.sched_yield()
        finally:
            os.close(descriptor)

    def joined(self) -> bytes:
        """The same, loaded once: several far replicas may need them.  Raises MemoryGone."""
        if self._joined is None:
            self._joined = b"".join(self.load())
        return self._joined


def make_file() -> tuple[int, str]:
    """A new memory file, where the system has such: its descriptor, and its name for other processes.

    Raises OSError.
    """
    descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC)
    return descriptor, f"/proc/{os.getpid()}/fd/{descriptor}"


def probe() -> ProbeMemory | None:
    """The question whether a peer can read our memory; None where there are no memory files."""
    file = _probe_file()
    return ProbeMemory(_PROBE_MS, host_id(), file) if file else None


def is_visible(question: ProbeMemory) -> bool:
    """The answer to the question of another process."""
    if not question.host or question.host != host_id():
        return False
    try:
        os.close(_open(question.file))
    except MemoryGone:
        return False
    return True


@cache
def _probe_file() -> str:
    """Stays open for as long as the process lives; empty where there is none to be had."""
    with suppress(OSError):
        if hasattr(os, "memfd_create"):
            return make_file()[1]
    return ""


def _read(descriptor: int, length: int, position: int, file: str) -> bytes:
    try:
        data = os.pread(descriptor, length, position)
    except OSError as error:
        raise MemoryGone(f"{file}: {error.strerror}") from error
    if len(data) != length:
        raise MemoryGone(f"{file} has {position + len(data)} bytes, and {position + length} were promised")
    return data


def _open(file: str) -> int:
    """Raises MemoryGone for what is not there, may not be read, or is no memory file of a fabric."""
    if not _FILE.fullmatch(file):
        raise MemoryGone(f"{file!r} does not name a memory file")
    try:
        # Looked at before it is opened: opening a device or a pipe may already do something.
        if os.readlink(file) != _TARGET:
            raise MemoryGone(f"{file} is something else")
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise MemoryGone(f"{file}: {error.strerror}") from error
