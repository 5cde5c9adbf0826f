"""The limits of disk, wire and HTTP really move what they say they moved."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest

from bench import http
from bench.disk_limit import append_durably
from bench.errors import BenchError
from bench.hops_limit import ROW_BYTES, HopsLimit
from bench.http_limit import BareHttp
from bench.wire_limit import WireLimit
from fabric.settings import KIB, MIB

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def test_the_disk_counts_objects_of_which_every_copy_is_durable(tmp_path: Path) -> None:
    sample = append_durably(tmp_path, 1 * KIB, group=4, seconds=0.01, copies=3)

    assert sample.elapsed_s > 0
    assert len(sample.latencies_s) % 4 == 0
    assert sample.bytes_moved == len(sample.latencies_s) * KIB > 0
    assert list(tmp_path.iterdir()) == []


def test_an_object_bigger_than_a_piece_is_written_whole_once_at_least(tmp_path: Path) -> None:
    sample = append_durably(tmp_path, 9 * MIB, group=1, seconds=0, copies=2)

    assert sample.bytes_moved == 9 * MIB


def test_a_disk_that_fails_is_an_error_and_no_figure(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        append_durably(tmp_path / "absent", 1 * KIB, group=1, seconds=0.01)


def test_the_wire_carries_payloads_both_ways_in_whole_objects() -> None:
    with WireLimit() as wire:
        for writes in (True, False):
            small = wire.measure(writes, 1 * KIB, concurrency=4, seconds=0.02)
            assert small.bytes_moved == len(small.latencies_s) * KIB >= 4 * KIB
            stream = wire.measure(writes, 12 * MIB, concurrency=1, seconds=0.0)
            assert stream.bytes_moved % (12 * MIB) == 0 < stream.bytes_moved
            assert len(stream.latencies_s) * 12 * MIB == stream.bytes_moved


@needs_curl
def test_bare_http_takes_and_gives_every_byte(tmp_path: Path) -> None:
    blob = http.Blob(tmp_path / "blob", 3 * MIB + 5)
    with BareHttp() as server:
        assert http.bare_push(server.url, blob).bytes_moved == 3 * MIB + 5
        assert http.bare_pull(server.url, blob).bytes_moved == 3 * MIB + 5


@needs_curl
def test_an_answer_that_is_not_the_right_one_is_no_figure(tmp_path: Path) -> None:
    blob = http.Blob(tmp_path / "blob", 10)
    with BareHttp() as server:
        with pytest.raises(BenchError, match="POST answered with status 404"):
            http.push(server.url, blob, patch=True)
        with pytest.raises(BenchError, match="GET answered with status 404"):
            http.pull(server.url, blob)
    with pytest.raises(BenchError, match="curl http"):
        http.pull(server.url, blob)


def test_a_renewed_blob_has_another_digest_and_the_same_size(tmp_path: Path) -> None:
    blob = http.Blob(tmp_path / "blob", 100)
    digests = set()
    for _ in range(3):
        blob.renew()
        digests.add(blob.digest)

    assert len(digests) == 3
    assert blob.path.stat().st_size == 100


def test_hops_alone_bring_every_object_to_every_file_before_they_are_counted(tmp_path: Path) -> None:
    with HopsLimit(tmp_path) as hops:
        sample = hops.measure(1 * KIB, in_flight=4, seconds=0.02)
        count = len(sample.latencies_s)
        assert count % 4 == 0
        assert sample.bytes_moved == count * KIB > 0
        (place,) = tmp_path.iterdir()
        *replicas, master = sorted(place.iterdir())
        for path, each in [*((path, b"o" * KIB) for path in replicas), (master, b"r" * ROW_BYTES)]:
            with path.open("rb") as file:
                assert file.read(count * len(each) + 1) == each * count + bytes(1)
    assert len(replicas) == 3
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []
