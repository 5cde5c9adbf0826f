"""``docs/formats.md`` is enough to read a store: this reader is written from it and uses none of our code."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import plyvel
import pytest
import xxhash

from fabric.chunk.engine import Engine
from fabric.chunk.jobs import CompactDone, CompactJob, DigestJob, DigestsDone, ReadBatch, ReadItem, WriteBatch
from fabric.chunk.leveldb_index import LevelDbHome
from fabric.node.os_disk import OsDisk
from fabric.settings import Settings
from tests.unit.chunk.engine_bench import UUID, delete, item, payload_of

DOCUMENT = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()


def read_store(directory: Path) -> tuple[dict[int, bytes], set[int], dict[int, int]]:
    """fid -> payload of the live fragments, the dead fids, and the kind of each file."""
    kinds: dict[int, int] = {}
    live: dict[int, bytes] = {}
    dead: set[int] = set()
    for path in sorted((directory / "fragments").glob("*.data")):
        data = path.read_bytes()
        assert data[:8] == b"FABRICDF" and data[:2048] == data[2048:4096]
        version, kind, number = struct.unpack_from("<HHI", data, 8)
        salt, _, check = struct.unpack_from("<QQQ", data, 32)
        assert (version, number, data[16:32]) == (1, int(path.stem), UUID)
        kinds[int(path.stem)] = kind
        assert check == xxhash.xxh3_64_intdigest(data[:48])
        at = 4096
        while data[at : at + 4] == b"FRec":
            assert struct.unpack_from("<Q", data, at + 64)[0] == xxhash.xxh3_64_intdigest(
                data[at : at + 64], salt
            )
            flags = data[at + 5]
            fid, offset, checksum, epoch, _, batch = struct.unpack_from("<QQQQQQ", data, at + 8)
            group, length = struct.unpack_from("<II", data, at + 56)
            assert offset == at >= batch and (group, epoch) == (1, 7)
            payload = b"" if flags & 1 else data[at + 72 : at + 72 + length]
            if flags & 1:
                dead.add(fid)
            elif xxhash.xxh3_64_intdigest(payload) == checksum:
                live[fid] = payload
            at += (72 + len(payload) + 7) // 8 * 8
        assert not any(data[at:])
    return {fid: payload for fid, payload in live.items() if fid not in dead}, dead, kinds


Row = tuple[int, int, int, int, int, int]


def read_index(directory: Path) -> tuple[dict[int, Row], dict[bytes, bytes]]:
    """fid -> (file, offset, length, checksum, flags, stale), and all other keys with their values."""
    rows: dict[int, Row] = {}
    others: dict[bytes, bytes] = {}
    store = plyvel.DB(str(directory / "index"))
    for key, value in store:
        assert struct.unpack("<Q", value[-8:])[0] == xxhash.xxh3_64_intdigest(key + value[:-8])
        if key[:1] != b"f":
            others[key] = value[:-8]
            continue
        fid = int.from_bytes(key[2:], "big")
        assert key == b"f" + bytes([(fid // 64 * 0x9E3779B97F4A7C15 % 2**64) >> 56]) + fid.to_bytes(8, "big")
        offset, checksum, file, length, flags, stale = struct.unpack("<QQIIII", value[:-8])
        rows[fid] = (file, offset, length, checksum, flags, stale)
    store.close()
    return rows, others


class Store:
    """An engine in a directory; each life of it is another process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_ms = 1_700_000_000_000

    @contextlib.contextmanager
    def life(self) -> Iterator[Engine]:
        disk = OsDisk(self.directory / "fragments")
        engine = Engine(
            disk,
            LevelDbHome(self.directory / "index"),
            uuid=UUID,
            settings=Settings(data_file_bytes_max=50_000, reserve_bytes=0, tombstone_keep_s=60),
            rng=random.Random(self.now_ms),
            wall_ms=lambda: self.now_ms,
        )
        yield engine
        engine.close()
        disk.close()

    def rot(self, fid: int) -> None:
        row = read_index(self.directory)[0][fid]
        path = self.directory / "fragments" / f"{row[0]:08d}.data"
        data = bytearray(path.read_bytes())
        data[row[1] + 72] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("mode", ["appended", "compacted", "compacted when tombstones are old"])
def test_a_reader_made_from_the_document_finds_everything(tmp_path: Path, mode: str) -> None:
    store = Store(tmp_path)
    deleted = {fid + more for fid in range(1, 61, 6) for more in (0, 1000)}
    with store.life() as engine:
        for first in range(1, 61, 6):
            engine.run(WriteBatch([item(fid, length=fid * 50) for fid in range(first, first + 6)]))
            engine.run(WriteBatch([delete(first), delete(first + 1000)]))
    store.rot(9)
    with store.life() as engine:
        engine.run(ReadBatch([ReadItem(None, 9, 0, 450)]))
        engine.run(WriteBatch([item(9, length=450)]))
        if mode != "appended":
            store.now_ms += 60_000 if "old" in mode else 0
            compact(engine)
        digests = engine.run(DigestJob(None))

    live, dead, kinds = read_store(tmp_path)
    rows, others = read_index(tmp_path)

    assert set(kinds.values()) == ({0} if mode == "appended" else {0, 1})
    assert dead < deleted if "old" in mode else dead == deleted
    assert live == {fid: payload_of(fid, fid * 50) for fid in range(1, 61) if fid not in deleted}
    assert rows.keys() == live.keys() | dead
    assert {fid for fid, row in rows.items() if row[4] & 1} == dead
    for fid, payload in live.items():
        assert rows[fid][2:4] == (len(payload), xxhash.xxh3_64_intdigest(payload))
    stale = rows[9][5]
    assert stale, "the damaged record is named"
    assert (stale in kinds) == (mode == "appended"), "and its file is gone when that was compacted"
    buckets = check_counters(rows, others, kinds)
    assert isinstance(digests, DigestsDone)
    assert digests.digests == [digest.to_bytes(16, "big") for digest in buckets]
    overall = xxhash.xxh3_128_intdigest(b"".join(digests.digests)).to_bytes(16, "big")
    assert digests.overall == overall


def compact(engine: Engine) -> None:
    done = engine.run(CompactJob(2**20, all_garbage=True))
    assert isinstance(done, CompactDone)
    while not done.idle:
        done = engine.run(done.follow or CompactJob(2**20, all_garbage=True))
        assert isinstance(done, CompactDone)


def check_counters(rows: dict[int, Row], others: dict[bytes, bytes], kinds: dict[int, int]) -> list[int]:
    """Recount what the index counts; gives the buckets' digests."""
    assert others.pop(b"v") == struct.pack("<I", 3)
    assert len(others.pop(b"w")) == 12
    digests, fragments, sizes = [0] * 256, [0] * 256, [0] * 256
    files: dict[int, list[int]] = {}
    for fid, (file, offset, length, checksum, flags, stale) in rows.items():
        assert stale == 0 or flags & 1 or fid == 9
        record = (72 + (0 if flags & 1 else length) + 7) // 8 * 8
        in_file = files.setdefault(file, [0, 0, 0])
        files[file] = [in_file[0] + 1, in_file[1] + record, max(in_file[2], offset + record)]
        if not flags & 1:
            bucket = (fid // 64 * 0x9E3779B97F4A7C15 % 2**64) >> 56
            digests[bucket] ^= xxhash.xxh3_128_intdigest(struct.pack("<QQQ", fid, length, checksum))
            fragments[bucket] += 1
            sizes[bucket] += length
    for bucket in range(256):
        counted = others.pop(b"b" + bytes([bucket]), bytes(32))
        assert counted == digests[bucket].to_bytes(16, "big") + struct.pack(
            "<QQ", fragments[bucket], sizes[bucket]
        )
    for file, (entries, record_bytes, end) in files.items():
        counted_entries, counted_bytes, counted_end, complete = struct.unpack(
            "<QQQI", others.pop(b"g" + struct.pack(">I", file))
        )
        assert (counted_entries, counted_bytes, complete) == (entries, record_bytes, kinds[file])
        assert counted_end >= end
    assert all(key[:1] == b"g" and value[:16] == bytes(16) for key, value in others.items())
    return digests


def test_the_document_tells_the_sizes_that_the_code_has() -> None:
    from fabric.chunk.data_file import ALLOCATE_BYTES
    from fabric.chunk.jobs import BATCH_BYTES_MAX
    from fabric.chunk.recovery import LOOKAHEAD_BYTES

    text = " ".join(DOCUMENT.split())
    assert f"in steps of {ALLOCATE_BYTES >> 20} MiB" in text
    assert (
        f"goes {LOOKAHEAD_BYTES >> 20} MiB beyond the damage; a write is at most {BATCH_BYTES_MAX >> 20} MiB"
        in text
    )
