"""What a directory on a disk promises: the contract that the chunk engine is written against.

**What survives a power cut.**

1. The bytes of a file, only those written before an ``fdatasync`` *of that file* began and returned
   without error.  Its size, as far as those bytes need it, with them.
2. A name (created, renamed to, or removed), only after ``sync_directory`` returned without error.
   A file whose name is lost is lost with all its synced bytes.
3. Whatever was not synced may survive in *any* subset: a later write without an earlier one, and a single
   write torn at any byte.
4. An ``fdatasync`` that failed says that bytes may be gone, although a read may still show them and a
   second ``fdatasync`` may succeed.  It must never be retried: the file is not written again.

**What holds while the power is on.**  Reads see all completed writes.  ``pwritev`` writes everything or
raises; after a failure any part of its range may have been written, and nothing outside of it.
Space that was allocated reads as zeros, and writing into it does not fail for lack of space.

Errors are NoSpace (the disk or quota is full) and DiskFailed (anything else the system reports).
Reads may run on several threads beside one writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import TypeAlias

Buffer: TypeAlias = "bytes | memoryview"


class File(Protocol):
    """An open file.  Offsets and lengths in bytes."""

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write the buffers one behind the other from ``offset``.  Raises NoSpace, DiskFailed."""
        ...

    def pread(self, length: int, offset: int) -> bytes:
        """``length`` bytes from ``offset``, fewer only at the end of the file.  Raises DiskFailed."""
        ...

    def fdatasync(self) -> None:
        """Return when all written bytes are on stable storage.  Raises DiskFailed; never retry then."""
        ...

    def allocate(self, offset: int, length: int) -> None:
        """Reserve space, which reads as zeros where nothing was written; the file grows to its end.

        Raises NoSpace, DiskFailed.
        """
        ...

    def truncate(self, length: int) -> None:
        """Drop all bytes from ``length`` on, or grow with zeros.  Durable with the next ``fdatasync``."""
        ...

    def size(self) -> int:
        """Bytes to the end of the file."""
        ...

    def forget(self, offset: int, length: int) -> None:
        """Let the next read of these bytes come from the disk, not from memory, where that can be had."""
        ...

    def close(self) -> None:
        """Release the handle; syncs nothing.  A handle that nobody holds any more is released by itself."""
        ...


class Disk(Protocol):
    """One directory.  Names are plain file names."""

    def open(self, name: str) -> File:
        """An existing file, for reading and writing.  Raises DiskFailed, also when it is absent."""
        ...

    def create(self, name: str) -> File:
        """A new empty file.  Raises DiskFailed when the name is taken, NoSpace."""
        ...

    def names(self) -> list[str]:
        """All file names, sorted."""
        ...

    def rename(self, name: str, to: str) -> None:
        """Give a file another name, replacing what had it.  Raises DiskFailed, NoSpace."""
        ...

    def remove(self, name: str) -> None:
        """Remove a name.  Raises DiskFailed."""
        ...

    def sync_directory(self) -> None:
        """Return when the names are on stable storage.  Raises DiskFailed."""
        ...

    def free_bytes(self) -> int:
        """Bytes that this user may still allocate."""
        ...

    def capacity_bytes(self) -> int:
        """Size of the whole disk."""
        ...
