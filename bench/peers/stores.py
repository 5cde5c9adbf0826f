"""Stores with many entries, filled the short way: the code's own formats and LevelDB, without the roles.

Ten million puts through ``fabric up`` would take hours, so the record files, the index and the catalog are
written directly: every key and value by the functions that the roles use, thousands in one batch.  What
comes out is what that many puts would have left behind, but for the answers to recent commits, which are
few.
"""

from __future__ import annotations

import random
import shutil
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import msgspec
import xxhash

from bench.engine.store import EPOCH, GROUP, UUID
from bench.objects import read_name
from fabric.chunk.data_file import DataFile
from fabric.chunk.index import Entry, Watermark
from fabric.chunk.leveldb_index import LevelDbHome
from fabric.chunk.record import (
    SUPERBLOCK_BYTES,
    RecordHeader,
    Superblock,
    decode_superblock,
    encode_header,
    encode_superblock,
    record_bytes,
)
from fabric.chunk.totals import Totals
from fabric.ids import bucket_of
from fabric.master import keys
from fabric.master.leveldb_store import LevelDbStore, open_store
from fabric.master.records import ObjectRecord, encode
from fabric.master.store import Pair
from fabric.node.os_disk import OsDisk
from fabric.settings import BUCKETS
from fabric.wire.messages import FragmentRef

PAYLOAD = bytes(range(16))
"""Of each fragment: small, so that ten million fit into one data file.  Its entry is as large as any."""
BATCH = 4096
CREATED_AT_MS = 1_700_000_000_000
DIGEST = "sha256:" + "5b" * 32

_CHECKSUM = xxhash.xxh3_64_intdigest(PAYLOAD)


def fill_fabric(data: Path, count: int) -> None:
    """What ``fabric up`` in ``data``, which has run once and is stopped, has stored: ``count`` objects.

    Its group 1 gets them; what was stored before is forgotten.  Raises FabricError, StoreError, OSError.
    """
    filled: Path | None = None
    for directory in sorted(data.glob("chunk-*")):
        uuid = bytes.fromhex(msgspec.json.decode((directory / "server.json").read_bytes())["uuid"])
        for name in ("fragments", "index"):
            shutil.rmtree(directory / name)
        if filled is None:
            fill_fragments(directory, range(1, count + 1), uuid)
            filled = directory
        else:
            copy_fragments(filled, directory, uuid)
    store = open_store(data / "master")
    try:
        _fill(store, count)
        next_fid = keys.number(count + 1)
        store.write({keys.FIDS: next_fid, keys.HORIZON: next_fid})
    finally:
        store.close()


def fill_fragments(directory: Path, fids: range, uuid: bytes = UUID) -> None:
    """The data directory of a chunk server with these fragments; ``open_engine`` opens one of the usual uuid.

    In the order of their keys; see ``fill_catalog``.  Raises FabricError, OSError.
    """
    (directory / "fragments").mkdir(parents=True)
    disk = OsDisk(directory / "fragments")
    index = LevelDbHome(directory / "index").create()
    totals = Totals()
    file = DataFile.create(disk, Superblock(uuid, 1, random.getrandbits(64), CREATED_AT_MS))
    try:
        order = _in_key_order(fids)
        while some := list(islice(order, BATCH)):
            entries = list(_append(file, some))
            for fid, entry in entries:
                totals.replace(fid, None, entry)
            index.put(entries, totals.take_changes())
        index.checkpoint(Watermark(file.number, file.end))
    finally:
        index.close()
        file.file.close()
        disk.close()


def copy_fragments(source: Path, target: Path, uuid: bytes) -> None:
    """What another server holds, under the name of this one."""
    for name in ("fragments", "index"):
        shutil.copytree(source / name, target / name)
    for path in (target / "fragments").glob("*.data"):
        with path.open("r+b") as file:
            superblock = decode_superblock(file.read(SUPERBLOCK_BYTES))
            assert superblock is not None, "just written"
            file.seek(0)
            file.write(encode_superblock(msgspec.structs.replace(superblock, uuid=uuid)))


def _append(file: DataFile, fids: Sequence[int]) -> Iterator[tuple[int, Entry]]:
    """Write the records, sync them, then give their entries."""
    batch, size = file.end, record_bytes(len(PAYLOAD))
    buffers = []
    for number, fid in enumerate(fids):
        offset = batch + number * size
        header = RecordHeader(fid, offset, _CHECKSUM, EPOCH, CREATED_AT_MS, batch, GROUP, len(PAYLOAD))
        buffers += [encode_header(header, file.salt), PAYLOAD]
    file.append([b"".join(buffers)], len(fids) * size)
    for number, fid in enumerate(fids):
        yield fid, Entry(file.number, batch + number * size, len(PAYLOAD), _CHECKSUM)


def fill_catalog(directory: Path, count: int) -> LevelDbStore:
    """A master's store with the objects 0 to ``count`` - 1 of one fragment each; open.

    Keys go in in their order, so that LevelDB has its tables as they are after a full compaction.  Raises
    StoreError.
    """
    store = open_store(directory)
    _fill(store, count)
    return store


def _fill(store: LevelDbStore, count: int) -> None:
    pairs = chain(_objects(count), _pages(count), _references(count))
    while batch := dict(islice(pairs, 2 * BATCH)):
        store.write(batch)
    store.write({keys.GENERATION: keys.number(count)})


def path_of(number: int, extra: int = 0) -> str:
    """Of an object; with ``extra``, a path right behind it that is free."""
    return f"{read_name(len(PAYLOAD), True, number)}{'-' * (extra > 0)}{extra or ''}"


def _objects(count: int) -> Iterator[Pair]:
    for number in range(count):
        object_id = number + 1
        record = ObjectRecord(
            object_id, len(PAYLOAD), object_id, CREATED_AT_MS, DIGEST, {}, True, last_start=0, last_count=1
        )
        yield keys.object_key(path_of(number)), encode(record)


def _pages(count: int) -> Iterator[Pair]:
    for fid in range(1, count + 1):
        yield keys.page_key(fid, 0), encode([FragmentRef(GROUP, fid, len(PAYLOAD), _CHECKSUM)])


def _references(count: int) -> Iterator[Pair]:
    for fid in _in_key_order(range(1, count + 1)):
        yield keys.reference_key(GROUP, fid), keys.reference_value(fid, 0)


def _in_key_order(fids: range) -> Iterator[int]:
    """By bucket, then by fid: as the keys of an index, and of references, sort."""
    buckets = [array("Q") for _ in range(BUCKETS)]
    for fid in fids:
        buckets[bucket_of(fid)].append(fid)
    for bucket in buckets:
        yield from bucket
