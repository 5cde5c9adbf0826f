import asyncio

import pytest

from fabric.driver.budget import ByteBudget
from tests.unit.driver.fake_client import settle


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 5))


def test_bytes_that_fit_are_taken_at_once_and_come_back():
    async def scenario():
        budget = ByteBudget(100)
        await budget.acquire(60)
        await budget.acquire(40)
        assert budget.used == 100
        budget.release(60)
        budget.release(40)
        assert budget.used == 0

    run(scenario())


def test_those_who_wait_are_served_in_order_and_a_small_one_does_not_overtake():
    async def scenario():
        budget = ByteBudget(100)
        await budget.acquire(100)
        served: list[str] = []

        async def take(name: str, size: int) -> None:
            await budget.acquire(size)
            served.append(name)

        tasks = [asyncio.create_task(take("big", 90)), asyncio.create_task(take("small", 10))]
        await settle()
        budget.release(20)
        await settle()
        assert served == []
        budget.release(80)
        await settle()
        assert served == ["big", "small"]
        assert budget.used == 100
        await asyncio.gather(*tasks)

    run(scenario())


def test_a_newcomer_stands_behind_those_who_wait_though_it_would_fit():
    async def scenario():
        budget = ByteBudget(100)
        await budget.acquire(50)
        waiting = asyncio.create_task(budget.acquire(80))
        await settle()
        assert not budget.try_acquire(10)
        newcomer = asyncio.create_task(budget.acquire(10))
        await settle()
        assert not newcomer.done()
        budget.release(50)
        await asyncio.gather(waiting, newcomer)
        assert budget.used == 90

    run(scenario())


def test_one_larger_than_the_whole_budget_passes_alone():
    async def scenario():
        budget = ByteBudget(100)
        await budget.acquire(1)
        large = asyncio.create_task(budget.acquire(500))
        await settle()
        assert not large.done()
        budget.release(1)
        await large
        assert budget.used == 500
        assert not budget.try_acquire(1)
        budget.release(500)
        assert budget.try_acquire(1)

    run(scenario())


def test_a_waiter_that_is_cancelled_takes_nothing_and_lets_those_behind_it_in_at_once():
    async def scenario():
        budget = ByteBudget(100)
        await budget.acquire(50)
        large = asyncio.create_task(budget.acquire(80))
        small = asyncio.create_task(budget.acquire(30))
        await settle()
        large.cancel()
        await settle()
        assert small.done()
        assert budget.used == 80

    run(scenario())


def test_one_that_is_cancelled_just_after_its_turn_came_gives_its_bytes_back():
    async def scenario():
        budget = ByteBudget(100)
        await budget.acquire(100)
        first = asyncio.create_task(budget.acquire(60))
        second = asyncio.create_task(budget.acquire(60))
        await settle()
        budget.release(100)  # the first one's turn, which it has not seen yet
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert budget.used == 60

    run(scenario())
