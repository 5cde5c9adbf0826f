"""A client whose answers the test gives, and a way to let an event loop settle."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

from fabric.errors import FabricError
from fabric.wire.messages import Request

Script = Callable[[Request, Any], Any]
"""Takes a request and its payload; returns (answer, payload), or raises FabricError, or waits."""


class FakeClient:
    """Stands in for ``Client``: records what is asked and answers by script."""

    def __init__(self, script: Script) -> None:
        self.asked: list[Request] = []
        self.under_way = 0
        self.most_under_way = 0
        self._script = script

    async def request(
        self,
        kind: type[Any],
        message: Request,
        payload: Any = None,
        *,
        patience_s: float | None = None,
        not_again: type[FabricError] | None = None,
    ) -> tuple[Any, Any]:
        self.asked.append(message)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answer = self._script(message, payload)
            if asyncio.iscoroutine(answer):
                answer = await answer
        finally:
            self.under_way -= 1
        assert isinstance(answer[0], kind)
        return answer  # type: ignore[no-any-return]


async def settle() -> None:
    """Let every task run until all of them wait for something that the test controls."""
    for _ in range(30):
        await asyncio.sleep(0)


def noise_of(scenario: Callable[[], Coroutine[Any, Any, None]]) -> list[str]:
    """Runs it; what the event loop had to complain about, such as an error that nobody retrieved."""
    complaints: list[str] = []

    async def listening() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context["message"]))
        await asyncio.wait_for(scenario(), 5)
        gc.collect()

    asyncio.run(listening())
    return complaints


class Gate:
    """Calls that wait until the test lets each one through, with a result or an error."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self.seen: list[Any] = []

    async def __call__(self, argument: Any) -> Any:
        self.seen.append(argument)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append((argument, future))
        try:
            return await future
        except asyncio.CancelledError:
            self.waiting = [entry for entry in self.waiting if entry[1] is not future]
            raise

    def open(self, position: int, result: Any) -> None:
        """End the call at ``position`` of those that wait."""
        _, future = self.waiting.pop(position)
        if isinstance(result, FabricError):
            future.set_exception(result)
        else:
            future.set_result(result)
