"""The closed loop of workers."""

from __future__ import annotations

import asyncio

from bench.load import drive
from fabric.errors import Busy


def test_so_many_workers_are_at_work_at_once_and_numbers_do_not_repeat() -> None:
    under_way = most = 0
    seen: list[int] = []

    async def operation(number: int) -> int:
        nonlocal under_way, most
        seen.append(number)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return 10

    sample = asyncio.run(drive(operation, concurrency=4, seconds=60, bytes_max=400))

    assert most == 4
    assert seen == list(range(len(seen)))
    assert 400 <= sample.bytes_moved < 440  # those under way are finished and counted
    assert len(sample.latencies_s) * 10 == sample.bytes_moved


def test_each_worker_does_one_operation_when_there_is_no_time() -> None:
    async def operation(_: int) -> int:
        await asyncio.sleep(0)
        return 1

    sample = asyncio.run(drive(operation, concurrency=3, seconds=0, bytes_max=1000))

    assert len(sample.latencies_s) == 3


def test_failures_are_counted_by_code_and_are_no_latencies() -> None:
    async def operation(number: int) -> int:
        if number % 2:
            raise Busy("later")
        return 1

    sample = asyncio.run(drive(operation, concurrency=1, seconds=60, bytes_max=3))

    assert sample.errors == {"BUSY": 2}
    assert len(sample.latencies_s) == 3
