"""Single flight: of several who want the same, one asks, and all get the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """Work under way, by what it is for.  Nobody who stops waiting ends it for the others."""

    def __init__(self, together_max: int) -> None:
        self._together = asyncio.Semaphore(together_max)
        self._tasks: dict[Hashable, asyncio.Task[Result]] = {}

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The result of the work that is under way for ``key``, or of ``work``, or what it raises."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(self._run(work))
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End all."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        async with self._together:
            return await work()

    def _ended(self, key: Hashable, task: asyncio.Task[Result]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # everybody who waited may have gone
