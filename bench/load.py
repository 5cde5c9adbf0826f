"""A closed loop: so many workers, each starting its next operation when the last has ended."""

from __future__ import annotations

import asyncio
import itertools
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from time import perf_counter

from bench.stats import Sample
from fabric.errors import FabricError

Operation = Callable[[int], Awaitable[int]]
"""Does operation number n and returns the bytes that it moved."""


async def drive(operation: Operation, concurrency: int, seconds: float, bytes_max: int) -> Sample:
    """Run the loop for so long or so many bytes; operations under way are finished and counted.

    An operation that fails with a FabricError is counted by its code and not among the latencies.
    Each worker does at least one.
    """
    numbers = itertools.count()
    latencies = array("d")
    errors: Counter[str] = Counter()
    moved = 0
    started = perf_counter()

    async def work() -> None:
        nonlocal moved
        while True:
            before = perf_counter()
            try:
                # Not `moved += await …`, which reads `moved` before the others have added theirs.
                done_bytes = await operation(next(numbers))
                latencies.append(perf_counter() - before)
                moved += done_bytes
            except FabricError as error:
                errors[error.code] += 1
            if perf_counter() - started >= seconds or moved >= bytes_max:
                return

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return Sample(latencies, moved, perf_counter() - started, dict(errors))
