"""Benchmark of the chunk engine: what it counts, and how it judges."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import xxhash

from bench.engine.figures import figure
from bench.engine.store import Payloads, delete, forget_pages, open_engine, read, write
from bench.engine.writes import BATCH, CountingDisk, _Appends, _Puts
from bench.errors import BenchError
from fabric.settings import KIB


@pytest.mark.parametrize(
    ("runs", "at_least", "attained"),
    [
        ([0.2, 0.9, 5.0], True, True),
        ([0.2, 0.89, 5.0], True, False),
        ([0.2, 0.89, 5.0], False, True),
        ([0.2, 0.9, 5.0], False, False),
    ],
)
def test_the_median_is_judged_whatever_the_other_runs(
    runs: list[float], at_least: bool, attained: bool
) -> None:
    judged = figure("it", runs, "s", target=0.9, at_least=at_least)

    assert judged.value == sorted(runs)[1]
    assert judged.attained is attained
    assert judged.target_text == ("≥ 0.9 s" if at_least else "< 0.9 s")


def test_payloads_are_as_large_as_said_differ_and_have_their_checksums() -> None:
    payloads = Payloads(KIB, count=3)
    items = [payloads.item(fid, token=fid) for fid in range(4)]

    assert [item.fid for item in items] == [item.token for item in items] == [0, 1, 2, 3]
    assert {len(item.payload) for item in items} == {KIB}
    assert len({item.payload for item in items}) == 3
    assert all(xxhash.xxh3_64_intdigest(item.payload) == item.checksum for item in items)


def test_each_get_and_each_batch_is_counted_once(tmp_path: Path) -> None:
    disk = CountingDisk(tmp_path / "fragments")
    payloads = Payloads(KIB)
    with open_engine(tmp_path, disk) as engine:
        write(engine, [payloads.item(0)])
        syncs, reads = disk.syncs, disk.reads
        for first in (1, 33):
            write(engine, map(payloads.item, range(first, first + 32)))
        assert disk.syncs - syncs == 2
        for _ in range(5):
            read(engine, random.randrange(65), KIB)
        assert disk.reads - reads == 5


def test_what_fails_is_not_measured(tmp_path: Path) -> None:
    payloads = Payloads(KIB)
    with open_engine(tmp_path) as engine:
        write(engine, [payloads.item(1), delete(1)])
        with pytest.raises(BenchError, match="deleted"):
            write(engine, [payloads.item(1)])
        with pytest.raises(BenchError, match="not on this server"):
            read(engine, 1, KIB)


def test_engine_and_limit_write_the_same_bytes(tmp_path: Path) -> None:
    payloads = Payloads(64 * KIB)
    limit = _Appends(tmp_path / "limit")
    with open_engine(tmp_path) as engine:
        assert _Puts(engine).append(payloads, batches=3) > 0
        assert engine.status().live_bytes == 3 * BATCH * payloads.size_bytes
    assert limit.append(payloads, batches=3) > 0
    limit.close()
    written = (tmp_path / "limit").read_bytes().rstrip(b"\0")
    assert len(written) == 3 * BATCH * payloads.size_bytes


def test_forgetting_pages_changes_no_byte(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    content = random.Random(1).randbytes(100 * KIB)
    for path in (tmp_path / "one", tmp_path / "below" / "two"):
        path.write_bytes(content)

    forget_pages(tmp_path)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "below" / "two").read_bytes() == content
