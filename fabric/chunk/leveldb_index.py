"""The index in LevelDB.  Contract: ``fabric.chunk.index``.

**Why a checkpoint is more than a synchronous write.**  LevelDB makes a synchronous write durable with all
that stands before it in the *same* log file.  When a memtable is full it goes on in a new log and leaves the
old one unsynced until its table is written in the background.  A power cut in between would keep the
watermark and lose entries before it.  So a checkpoint first syncs every log file in the directory (LevelDB
has already handed each record to the system) and the directory itself, then writes the watermark.

**Why damage never reads as absence.**  Opened with ``create_if_missing`` a store without its CURRENT
file becomes an empty one; so only ``create`` passes that.  ``paranoid_checks`` makes a damaged log an
error, ``verify_checksums`` a damaged table; what both miss is caught by the checksum in each value.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import plyvel

from fabric.chunk.index import (
    FRAGMENTS,
    WATERMARK_KEY,
    Entry,
    IndexLost,
    Watermark,
    bucket_prefix,
    decode_key,
    decode_value,
    decode_watermark,
    encode_key,
    encode_value,
    encode_watermark,
)
from fabric.errors import DiskFailed, FabricError, NoSpace

WRITE_BUFFER_BYTES = 8 * 1024 * 1024
CACHE_BYTES = 32 * 1024 * 1024
BLOOM_BITS = 10

_REFUSED = ("lock", "Permission denied", "Too many open files", "No space left")
"""What the system says when the store itself may be sound."""


class _translated:
    """Turn what LevelDB and the system raise into the fabric's errors.

    Written out, as it stands around every access: ``contextlib`` makes one several times as expensive.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, plyvel.Error | OSError) and not isinstance(error, FabricError):
            raise _meaning(self._path, error) from error


def _meaning(path: Path, error: BaseException) -> FabricError:
    text = f"index {path}: {error}"
    if isinstance(error, plyvel.IOError):
        if "No space left" in text:
            return NoSpace(text)
        return DiskFailed(text) if any(sign in text for sign in _REFUSED) else IndexLost(text)
    return IndexLost(text) if isinstance(error, plyvel.Error) else DiskFailed(text)


class LevelDbIndex:
    """One open LevelDB."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Raises IndexLost, DiskFailed, NoSpace."""
        self._path = path
        with _translated(path):
            self._db: Any = plyvel.DB(
                str(path),
                create_if_missing=create,
                error_if_exists=create,
                paranoid_checks=True,
                write_buffer_size=WRITE_BUFFER_BYTES,
                lru_cache_size=CACHE_BYTES,
                bloom_filter_bits=BLOOM_BITS,
                compression=None,
            )

    def get(self, fid: int) -> Entry | None:
        key = encode_key(fid)
        with _translated(self._path):
            value = self._db.get(key, verify_checksums=True)
        return decode_value(key, value) if value is not None else None

    def put(self, entries: Sequence[tuple[int, Entry]]) -> None:
        with _translated(self._path):
            batch = self._db.write_batch()
            for fid, entry in entries:
                key = encode_key(fid)
                batch.put(key, encode_value(key, entry))
            batch.write()

    def scan(self) -> Iterator[tuple[int, Entry]]:
        return self._iterate(FRAGMENTS, None)

    def scan_bucket(self, bucket: int, after: int | None) -> Iterator[tuple[int, Entry]]:
        return self._iterate(bucket_prefix(bucket), after)

    def _iterate(self, prefix: bytes, after: int | None) -> Iterator[tuple[int, Entry]]:
        start = prefix if after is None else prefix + after.to_bytes(8, "big")
        stop = prefix[:-1] + bytes([prefix[-1] + 1]) if prefix[-1] < 255 else FRAGMENTS + b"\xff" * 10
        with (
            _translated(self._path),
            self._db.iterator(
                start=start,
                stop=stop,
                include_start=after is None,
                verify_checksums=True,
                fill_cache=False,
            ) as iterator,
        ):
            for key, value in iterator:
                yield decode_key(key), decode_value(key, value)

    def checkpoint(self, watermark: Watermark) -> None:
        with _translated(self._path):
            for log in self._path.glob("*.log"):
                # A log that vanishes has just become a table, which LevelDB syncs itself.
                with contextlib.suppress(FileNotFoundError):
                    _sync(log, os.O_RDWR)
            _sync(self._path, os.O_RDONLY | os.O_DIRECTORY)
            self._db.put(WATERMARK_KEY, encode_watermark(watermark), sync=True)

    def watermark(self) -> Watermark | None:
        with _translated(self._path):
            value = self._db.get(WATERMARK_KEY, verify_checksums=True)
        return decode_watermark(value) if value is not None else None

    def close(self) -> None:
        self._db.close()


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class LevelDbHome:
    """The directory of an index.  A damaged index is kept beside it as ``NAME.damaged``, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> LevelDbIndex:
        if not (self._path / "CURRENT").exists():
            raise IndexLost(f"there is no index in {self._path}")
        return LevelDbIndex(self._path, create=False)

    def create(self) -> LevelDbIndex:
        if self._path.exists() and any(self._path.iterdir()):
            aside = self._path.with_name(self._path.name + ".damaged")
            with _translated(self._path):
                if aside.exists():
                    shutil.rmtree(aside)
                self._path.rename(aside)
        index = LevelDbIndex(self._path, create=True)
        with _translated(self._path):
            _sync(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return index
