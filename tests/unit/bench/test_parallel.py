"""The slow link is slow for each connection by itself, and loses nothing."""

from __future__ import annotations

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from urllib.parse import urlsplit

import pytest

from bench.http_limit import BareHttp
from bench.parallel.__main__ import Push, Row, scenes
from bench.parallel.slow_link import SlowLink

BYTES_PER_S = 2_000_000
SIZE = 600_000


def fetch(url: str) -> tuple[int, float]:
    started = perf_counter()
    with urllib.request.urlopen(f"{url}/source/{SIZE}", timeout=30) as answer:
        return len(answer.read()), perf_counter() - started


def test_no_connection_is_faster_than_its_rate() -> None:
    with BareHttp() as server:
        parts = urlsplit(server.url)
        with (
            SlowLink(str(parts.hostname), int(parts.port or 0), BYTES_PER_S) as link,
            ThreadPoolExecutor(4) as pool,
        ):
            fetched = list(pool.map(fetch, [link.url] * 4))
    assert [size for size, _ in fetched] == [SIZE] * 4
    # The last piece is not waited for; the first ones fill buffers.
    assert all(seconds >= 0.5 * SIZE / BYTES_PER_S for _, seconds in fetched)


def test_a_row_says_the_median_and_processor_time_for_each_gigabyte() -> None:
    row = Row("x", 2_000_000_000, [Push(10.0, {"chunk": 4.0}), Push(30.0, {}), Push(20.0, {"chunk": 8.0})])
    assert (row.mb_s, row.processor_s("chunk"), row.processor_s("proxy")) == (100.0, 2.0, 0.0)


@pytest.mark.parametrize("slow_mb_s", [20.0])
def test_every_row_has_a_name_of_its_own(slow_mb_s: float) -> None:
    names = [scene.name(each) for scene in scenes(slow_mb_s) for each in scene.connections]
    assert len(set(names)) == len(names)
    assert sum("20 MB/s each" in name for name in names) == 4
