"""Bytes that the disk cannot read any more: an error, another copy, and the rest goes on."""

from __future__ import annotations

import pytest

from fabric.chunk.data_file import file_name
from fabric.errors import DiskFailed
from fabric.wire.messages import BucketEntry
from sim.crashes import keep_all
from tests.unit.chunk.crash_scenes import SETTINGS
from tests.unit.chunk.engine_bench import Bench, checksum_of, delete, payload_of
from tests.unit.chunk.ledger import audit


def bench_with_an_unreadable_fragment() -> Bench:
    """Fragments 1 to 12 over three files; 2, in the first, cannot be read.  The watermark is behind all."""
    bench = Bench(settings=SETTINGS)
    for fid in range(1, 13):
        bench.store(fid)
    bench.engine.close()
    bench = bench.crashed()
    entry = bench.engine._index.get(2)
    assert entry is not None and entry.file == 1
    bench.disk.make_unreadable(file_name(1), entry.offset + 80, entry.offset + 90)
    return bench


def test_a_read_of_it_names_what_a_good_copy_is_and_the_others_are_served() -> None:
    bench = bench_with_an_unreadable_fragment()
    result = bench.read(2)
    assert result.error is not None and result.error.code == "DISK_FAILED"
    assert result.damaged == BucketEntry(2, 100, checksum_of(payload_of(2)))
    assert "cannot be read" in bench.engine.status().read_only_reason
    assert all(bench.content(fid) == payload_of(fid) for fid in range(3, 13))


def test_the_scrub_finds_it() -> None:
    bench = bench_with_an_unreadable_fragment()
    damaged = [entry.fid for done in bench.scrub() for entry in done.damaged]
    assert damaged == [2]
    assert bench.engine.status().quarantined == 1


def test_a_good_copy_takes_its_place_and_holds_through_starts() -> None:
    bench = bench_with_an_unreadable_fragment()
    bench.read(2)
    bench.store(2)
    assert bench.content(2) == payload_of(2)
    for after in (bench.killed(), bench.crashed(bench.disk.crash(keep_all))):
        assert after.content(2) == payload_of(2)
        audit(after)


def test_its_file_is_not_compacted_and_the_others_are() -> None:
    """Nothing of it is forgotten, and compaction does not begin with it again and again."""
    bench = bench_with_an_unreadable_fragment()
    bench.write(delete(1), delete(6), delete(7))
    bench.compact()
    assert file_name(1) in bench.disk.names()
    assert file_name(2) not in bench.disk.names()
    assert bench.engine._compaction.status().problem
    assert [bench.content(fid) for fid in (3, 4, 5, 8, 12)] == [payload_of(fid) for fid in (3, 4, 5, 8, 12)]
    audit(bench)
    after = bench.killed()
    assert after.content(2) == "DISK_FAILED"
    assert after.content(3) == payload_of(3)
    assert after.live().keys() == {2, 3, 4, 5, 8, 9, 10, 11, 12}


def test_a_start_that_must_read_it_says_so() -> None:
    bench = bench_with_an_unreadable_fragment()
    with pytest.raises(DiskFailed, match=file_name(1)):
        bench.without_index()
