"""The index contract, over LevelDB and the index in memory that other tests use."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric.chunk.index import (
    Counters,
    Entry,
    Index,
    IndexHome,
    IndexLost,
    Watermark,
    decode_value,
    encode_key,
    encode_value,
)
from fabric.chunk.leveldb_index import LevelDbHome
from fabric.errors import DiskFailed
from fabric.ids import bucket_of
from sim.index import MemoryIndexHome


@pytest.fixture(params=["leveldb", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> IndexHome:
    return LevelDbHome(tmp_path / "index") if request.param == "leveldb" else MemoryIndexHome()


def entry_of(fid: int, flags: int = 0) -> Entry:
    return Entry(
        file=fid % 7, offset=fid * 8 % 2**64, length=fid % 4096, checksum=2**64 - 1 - fid, flags=flags
    )


FIDS = [0, 1, 2, 255, 256, 2**32, 2**63, 2**64 - 1]


def test_what_is_put_is_got(home: IndexHome) -> None:
    index = home.create()
    index.put([(fid, entry_of(fid, flags=fid % 2)) for fid in FIDS], Counters())
    assert [index.get(fid) for fid in FIDS] == [entry_of(fid, flags=fid % 2) for fid in FIDS]
    assert index.get(3) is None
    index.close()


def test_the_highest_fid_is_that_of_any_bucket_and_of_tombstones(home: IndexHome) -> None:
    index = home.create()
    assert index.highest_fid() == -1
    for fid in FIDS:
        index.put([(fid, entry_of(fid, flags=fid % 2))], Counters())
        assert index.highest_fid() == fid
    index.put([(fid, entry_of(fid)) for fid in range(1000)], Counters())
    assert index.highest_fid() == FIDS[-1]
    index.put([(fid, None) for fid in FIDS], Counters())
    assert index.highest_fid() == 999
    index.close()


def test_the_later_put_holds_also_within_one(home: IndexHome) -> None:
    index = home.create()
    index.put([(1, entry_of(1)), (1, entry_of(2))], Counters())
    assert index.get(1) == entry_of(2)
    index.put([(1, entry_of(3))], Counters())
    assert index.get(1) == entry_of(3)
    index.close()


def test_scanning_gives_everything_by_bucket_and_fid(home: IndexHome) -> None:
    index = home.create()
    rng = random.Random(1)
    fids = [rng.getrandbits(64) for _ in range(2000)] + FIDS
    index.put([(fid, entry_of(fid % 1000)) for fid in fids], Counters())
    index.checkpoint(Watermark(1, 4096))
    rows = list(index.scan())
    assert [fid for fid, _ in rows] == sorted(set(fids), key=lambda fid: (bucket_of(fid), fid))
    assert all(entry == entry_of(fid % 1000) for fid, entry in rows)
    index.close()


@pytest.mark.parametrize("bucket", [0, 7, 255])
def test_a_bucket_is_scanned_from_any_place(home: IndexHome, bucket: int) -> None:
    index = home.create()
    fids = [fid for fid in range(20_000) if bucket_of(fid) in (bucket, (bucket + 1) % 256)]
    index.put([(fid, entry_of(fid)) for fid in fids], Counters())
    mine = [fid for fid in fids if bucket_of(fid) == bucket]
    assert len(mine) > 20
    assert [fid for fid, _ in index.scan_bucket(bucket, None)] == mine
    assert [fid for fid, _ in index.scan_bucket(bucket, mine[4])] == mine[5:]
    assert [fid for fid, _ in index.scan_bucket(bucket, mine[4] - 1)] == mine[4:]
    assert [fid for fid, _ in index.scan_bucket(bucket, mine[-1])] == []
    index.close()


def test_the_greatest_fid_of_the_last_bucket_is_listed(home: IndexHome) -> None:
    index = home.create()
    fid = next(fid for fid in range(2**64 - 1, 0, -1) if bucket_of(fid) == 255)
    index.put([(fid, entry_of(1))], Counters())
    assert [found for found, _ in index.scan_bucket(255, None)] == [fid]
    index.close()


def test_a_scan_may_be_left_early(home: IndexHome) -> None:
    index = home.create()
    index.put([(fid, entry_of(fid)) for fid in range(100)], Counters())
    assert next(iter(index.scan()))[1] is not None
    index.close()


def test_it_survives_closing(home: IndexHome) -> None:
    index = home.create()
    assert index.watermark() is None
    index.put([(1, entry_of(1))], Counters())
    index.checkpoint(Watermark(3, 12345))
    index.put([(2, entry_of(2))], Counters())
    index.close()

    again = home.open()
    assert again.watermark() == Watermark(3, 12345)
    assert dict(again.scan()) == {1: entry_of(1), 2: entry_of(2)}
    again.close()


def test_opening_never_creates(home: IndexHome) -> None:
    with pytest.raises(IndexLost):
        home.open()
    with pytest.raises(IndexLost):
        home.open()


def test_creating_begins_empty_whatever_was_there(home: IndexHome) -> None:
    for _ in range(3):
        index = home.create()
        assert list(index.scan()) == []
        assert index.watermark() is None
        index.put([(1, entry_of(1))], Counters())
        index.checkpoint(Watermark(1, 1))
        index.close()


# --- LevelDB: damage is noticed ------------------------------------------------------------------------


def _filled(path: Path, count: int = 5000) -> LevelDbHome:
    """An index of which a part is in a table and a part in the log."""
    home = LevelDbHome(path)
    index = home.create()
    for first in range(0, count, 500):
        index.put([(fid, entry_of(fid)) for fid in range(first, first + 500)], Counters())
    index.checkpoint(Watermark(1, 4096))
    index.close()
    index = home.open()
    index.put([(fid, entry_of(fid)) for fid in range(count, count + 500)], Counters())
    index.close()
    return home


def _contents(home: LevelDbHome) -> dict[int, Entry]:
    """Everything, or IndexLost; as recovery reads it."""
    index: Index = home.open()
    try:
        index.watermark()
        return dict(index.scan())
    finally:
        index.close()


def _flip_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(bytes(data))


def _cut_first(path: Path) -> None:
    path.write_bytes(path.read_bytes()[100:])


def test_an_undamaged_store_is_whole(tmp_path: Path) -> None:
    assert len(_contents(_filled(tmp_path / "index"))) == 5500


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("CURRENT", Path.unlink),
        ("MANIFEST-*", Path.unlink),
        ("*.ldb", Path.unlink),
        ("*.ldb", _flip_middle),
        ("*.ldb", _cut_first),
        ("*.log", _flip_middle),
        ("MANIFEST-*", _flip_middle),
    ],
)
def test_a_damaged_store_is_lost_and_never_smaller(
    tmp_path: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    home = _filled(tmp_path / "index")
    victims = sorted((tmp_path / "index").glob(pattern))
    assert victims, pattern
    damage(victims[-1])

    with pytest.raises(IndexLost):
        _contents(home)
    index = home.create()
    assert list(index.scan()) == []
    index.close()
    assert (tmp_path / "index.damaged").is_dir()


def test_flipping_any_bit_of_a_value_is_noticed() -> None:
    key = encode_key(77)
    value = encode_value(key, entry_of(77))
    for bit in range(len(value) * 8):
        damaged = bytearray(value)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IndexLost):
            decode_value(key, bytes(damaged))
    with pytest.raises(IndexLost):
        decode_value(encode_key(78), value)


def test_a_store_that_another_holds_is_refused_and_not_replaced(tmp_path: Path) -> None:
    home = _filled(tmp_path / "index")
    index = home.open()
    with pytest.raises(DiskFailed) as caught:
        home.open()
    assert not isinstance(caught.value, IndexLost)
    index.close()
    assert len(_contents(home)) == 5500


def test_a_checkpoint_syncs_the_logs_before_it_writes_the_watermark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = LevelDbHome(tmp_path / "index")
    index = home.create()
    index.put([(1, entry_of(1))], Counters())
    synced: list[str] = []

    def note(path: Path, flags: int) -> None:
        assert index.watermark() is None
        synced.append(path.name)

    monkeypatch.setattr("fabric.chunk.leveldb_index._sync", note)
    index.checkpoint(Watermark(1, 2))
    assert synced[-1] == "index"
    assert [name for name in synced if name.endswith(".log")]
    assert index.watermark() == Watermark(1, 2)
    index.close()
