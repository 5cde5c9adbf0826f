"""Passes in the background of a registry process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fabric.driver.registry.background import collect_now_and_then, pace_of
from fabric.driver.registry.collection import Decision
from fabric.errors import Unavailable
from tests.unit.driver.registry.harness import asynchronous
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Clock, Process


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@asynchronous
async def test_a_pass_that_fails_is_followed_by_one_that_goes_on() -> None:
    shop = Process(MemoryStore(), Clock())
    await shop.upload("app", b"loose")
    shop.store.fail("list", Unavailable("for now"), after=3, times=2)
    task = asyncio.create_task(collect_now_and_then(shop.garbage, 0.001))

    def is_clean() -> bool:
        shop.clock.advance(1)
        return shop.store.paths() == ["meta/registry-gc", "meta/registry-index"]

    await until(is_clean)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynchronous
async def test_with_an_interval_of_zero_there_are_no_passes() -> None:
    shop = Process(MemoryStore(), Clock())
    await collect_now_and_then(shop.garbage, 0)
    assert shop.store.calls.total() == 0


@asynchronous
async def test_one_failure_ends_what_runs_beside_it() -> None:
    ended: list[str] = []

    async def fails() -> Decision | None:
        await asyncio.sleep(0)
        raise Unavailable("now")

    async def waits() -> Decision | None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")
        return None

    with pytest.raises(Unavailable, match="now"):
        await pace_of(0).gather([waits(), fails()])
    assert ended == ["waits"]


@asynchronous
async def test_results_come_in_order() -> None:
    async def after(steps: int) -> Decision | None:
        for _ in range(steps):
            await asyncio.sleep(0)
        return Decision([], amount=steps)

    results = await pace_of(0).gather([after(3), after(1), after(2)])
    assert [each.amount for each in results if each] == [3, 1, 2]
