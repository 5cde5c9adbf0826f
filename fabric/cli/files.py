"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, pieces: Iterable[bytes | memoryview]) -> int:
    """Write ``pieces`` under a temporary name beside ``path``, sync, rename; returns the bytes written.

    When ``pieces`` raises, or anything fails, ``path`` is as it was and nothing is left behind.
    Raises OSError and whatever ``pieces`` raises.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    size = 0
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                size += file.write(piece)
            file.flush()
            os.fchmod(descriptor, 0o666 & ~_umask())
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(path.parent)
    return size


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file whole.  Raises OSError."""
    write_whole(path, [json.dumps(value, indent=2).encode() + b"\n"])


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
