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
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import plyvel

from fabric.chunk.index import (
    BUCKET_COUNTERS,
    FILE_COUNTERS,
    FRAGMENTS,
    VERSION_KEY,
    VERSION_VALUE,
    WATERMARK_KEY,
    BucketTotals,
    Counters,
    Entry,
    IndexLost,
    Watermark,
    bucket_key,
    bucket_prefix,
    check_bucket,
    decode_bucket,
    decode_file,
    decode_key,
    decode_note,
    decode_value,
    decode_watermark,
    encode_bucket,
    encode_file,
    encode_key,
    encode_note,
    encode_value,
    encode_watermark,
    file_key,
    note_key,
)
from fabric.errors import DiskFailed, FabricError, NoSpace
from fabric.settings import BUCKETS

WRITE_BUFFER_BYTES = 8 * 1024 * 1024
CACHE_BYTES = 32 * 1024 * 1024
BLOOM_BITS = 10
TABLE_BYTES = 8 * 1024 * 1024
"""LevelDB keeps a thousand tables open: eight gigabytes of these."""
BLOCK_BYTES = 1024
"""A look-up verifies one block: a quarter of what LevelDB puts in one if not told."""

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
                block_size=BLOCK_BYTES,
                max_file_size=TABLE_BYTES,
                compression=None,
            )
            if create:
                self._db.put(VERSION_KEY, VERSION_VALUE)
            version = self._db.get(VERSION_KEY, verify_checksums=True)
        if version != VERSION_VALUE:
            self._db.close()
            raise IndexLost(f"index {path} has another format than this version")

    def get(self, fid: int) -> Entry | None:
        key = encode_key(fid)
        with _translated(self._path):
            value = self._db.get(key, verify_checksums=True)
        return decode_value(key, value) if value is not None else None

    def put(self, entries: Sequence[tuple[int, Entry | None]], counters: Counters) -> None:
        with _translated(self._path):
            batch = self._db.write_batch()
            for fid, entry in entries:
                key = encode_key(fid)
                if entry is None:
                    batch.delete(key)
                else:
                    batch.put(key, encode_value(key, entry))
            for bucket, totals in counters.buckets.items():
                key = bucket_key(bucket)
                batch.put(key, encode_bucket(key, totals))
            for number, in_file in counters.files.items():
                key = file_key(number)
                if in_file is None:
                    batch.delete(key)
                else:
                    batch.put(key, encode_file(key, in_file))
            batch.write()

    def counters(self) -> Counters:
        counters = Counters()
        for key, value in _rows(self._path, self._db, BUCKET_COUNTERS):
            counters.buckets[key[-1]] = decode_bucket(key, value)
        for key, value in _rows(self._path, self._db, FILE_COUNTERS):
            number, in_file = decode_file(key, value)
            counters.files[number] = in_file
        return counters

    def scan(self) -> Iterator[tuple[int, Entry]]:
        return _entries(self._path, self._db, FRAGMENTS, None)

    def scan_bucket(self, bucket: int, after: int | None) -> Iterator[tuple[int, Entry]]:
        return _entries(self._path, self._db, bucket_prefix(bucket), after)

    def highest_fid(self) -> int:
        highest = -1
        with _translated(self._path):
            for bucket in range(BUCKETS):
                start, stop = _range(bucket_prefix(bucket))
                with self._db.iterator(
                    start=start,
                    stop=stop,
                    reverse=True,
                    include_value=False,
                    verify_checksums=True,
                    fill_cache=False,
                ) as iterator:
                    for key in islice(iterator, 1):
                        highest = max(highest, decode_key(key))
        return highest

    def verify_bucket(self, bucket: int) -> None:
        key = bucket_key(bucket)
        with _translated(self._path):
            # Rows and counters as of one moment, although a writer goes on.
            snapshot = self._db.snapshot()
            value = snapshot.get(key, verify_checksums=True)
        counted = decode_bucket(key, value) if value is not None else BucketTotals()
        check_bucket(bucket, _entries(self._path, snapshot, bucket_prefix(bucket), None), counted)

    def note(self, name: str, value: bytes) -> None:
        key = note_key(name)
        with _translated(self._path):
            self._db.put(key, encode_note(key, value))

    def noted(self, name: str) -> bytes | None:
        key = note_key(name)
        with _translated(self._path):
            value = self._db.get(key, verify_checksums=True)
        return decode_note(key, value) if value is not None else None

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


def _entries(path: Path, source: Any, prefix: bytes, after: int | None) -> Iterator[tuple[int, Entry]]:
    for key, value in _rows(path, source, prefix, after):
        yield decode_key(key), decode_value(key, value)


def _rows(path: Path, source: Any, prefix: bytes, after: int | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Rows of a database or snapshot whose keys begin with ``prefix``, above the fid ``after``."""
    start, stop = _range(prefix)
    if after is not None:
        start += after.to_bytes(8, "big")
    with (
        _translated(path),
        source.iterator(
            start=start,
            stop=stop,
            include_start=after is None,
            verify_checksums=True,
            fill_cache=False,
        ) as iterator,
    ):
        yield from iterator


def _range(prefix: bytes) -> tuple[bytes, bytes]:
    """The keys that begin with ``prefix``: the first one, and one behind all."""
    if prefix[-1] < 255:
        return prefix, prefix[:-1] + bytes([prefix[-1] + 1])
    return prefix, prefix + b"\xff" * 9


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
        self._condemned = path.with_name(path.name + ".condemned")

    def open(self) -> LevelDbIndex:
        if self._condemned.exists():
            raise IndexLost(f"the index in {self._path} was found damaged")
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
            self._condemned.unlink(missing_ok=True)
            _sync(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return index

    def condemn(self) -> None:
        with _translated(self._path):
            self._condemned.touch()
            _sync(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
