"""The open data files of one server.

Changed on the write lane only; looked up on any thread.  A reader that got an entry just before its file was
taken out finds nothing here, and asks the index again: the entry has moved.
"""

from __future__ import annotations

from itertools import count

from fabric.chunk.data_file import DataFile


class FileTable:
    """Data files by number, and which one is appended to."""

    def __init__(self, files: dict[int, DataFile], number_min: int) -> None:
        """``files``: all of them, with ``end`` known.  ``number_min``: the lowest number to give next."""
        self._files = files
        appended = [number for number, data_file in files.items() if not data_file.is_compacted]
        self.active: DataFile | None = files[max(appended)] if appended else None
        """The newest one that is no compaction's; None when there is none."""
        self._sealed_bytes = sum(
            data_file.data_bytes for data_file in files.values() if data_file is not self.active
        )
        self._leaving: set[int] = set()
        """Taken out, and perhaps still on the disk."""
        self._numbers = count(max([number_min, *(number + 1 for number in files)]))

    def get(self, number: int) -> DataFile | None:
        """None when it was taken out."""
        return self._files.get(number)

    def numbers(self) -> list[int]:
        """Of all files that are on the disk, or may be."""
        return [*self._files, *self._leaving.copy()]

    def sealed(self) -> list[DataFile]:
        """All files that nothing is appended to any more."""
        active = self.active
        return [data_file for data_file in list(self._files.values()) if data_file is not active]

    def next_number(self) -> int:
        """A number that no file has had; may be asked on any thread."""
        return next(self._numbers)

    def add(self, data_file: DataFile) -> None:
        """A file that compaction has finished."""
        self._files[data_file.number] = data_file
        self._sealed_bytes += data_file.data_bytes

    def roll(self, data_file: DataFile) -> None:
        """Append to this new file from now on; the one before is sealed."""
        if self.active is not None:
            self._sealed_bytes += self.active.data_bytes
        self._files[data_file.number] = data_file
        self.active = data_file

    def take_out(self, number: int) -> DataFile:
        """A file that no entry points into any more.  Its handle closes with its last reader."""
        self._leaving.add(number)
        data_file = self._files.pop(number)
        self._sealed_bytes -= data_file.data_bytes
        return data_file

    def is_gone(self, number: int) -> None:
        """A file that was taken out is durably removed from the disk."""
        self._leaving.discard(number)

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self._files)

    @property
    def data_bytes(self) -> int:
        """Of records in all files, dead ones included."""
        return self._sealed_bytes + (self.active.data_bytes if self.active is not None else 0)

    def close(self) -> None:
        """Close every file."""
        for data_file in self._files.values():
            data_file.file.close()
