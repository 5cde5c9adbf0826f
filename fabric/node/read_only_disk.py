"""A directory of the operating system, for looking and no more: every file is opened for reading only."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fabric.errors import DiskFailed
from fabric.node.os_disk import CLOSED, LOCK_NAME, OsDisk, OsFile


class ReadOnlyFile(OsFile):
    """An open file; what would change it raises DiskFailed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = CLOSED
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DiskFailed(f"open {path}: {error.strerror}") from error


class ReadOnlyDisk(OsDisk):
    """An existing directory under the same lock as ``OsDisk``; nothing is created, not even the lock file."""

    def __init__(self, directory: Path) -> None:
        """Raises DiskFailed when another process holds the lock, or something is not there."""
        self.directory = directory
        try:
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._lock = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DiskFailed(f"open {error.filename}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise DiskFailed(f"{directory} is in use by another process (its LOCK file is held)") from error

    def open(self, name: str) -> OsFile:
        return ReadOnlyFile(self.directory / name)
