"""Garbage collection in the background of a registry process, now and then.

Each process does it, at times of its own: two passes side by side are harmless, and none has to be chosen.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Sequence
from typing import Any

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.bookkeeping import Stamper
from fabric.driver.registry.collection import Decision, Pace, Report, policy_of
from fabric.driver.registry.garbage import GarbageCollection
from fabric.errors import FabricError
from fabric.settings import Settings

_log = logging.getLogger(__name__)


def garbage_collection(store: ObjectStore, settings: Settings, stamper: Stamper) -> GarbageCollection:
    """Passes over the store that keep the settings' pace."""
    return GarbageCollection(
        store, stamper, policy_of(settings), settings.manifest_bytes_max, pace_of(settings.gc_pause_s)
    )


def pace_of(pause_s: float) -> Pace:
    """Look at marks side by side, and wait so long between two steps."""

    async def pause() -> None:
        await asyncio.sleep(pause_s)

    async def gather(coroutines: Sequence[Coroutine[Any, Any, Decision | None]]) -> list[Decision | None]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(coroutine) for coroutine in coroutines]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # one is enough to end the pass
        return [task.result() for task in tasks]

    return Pace(pause, gather)


async def collect_now_and_then(garbage: GarbageCollection, interval_s: float) -> None:
    """Run passes until cancelled; at once return when ``interval_s`` is 0.

    A pass that fails is a warning: the next one goes on where it was.
    """
    share = random.random()  # processes that were started together shall not walk together
    while interval_s > 0:
        await asyncio.sleep(interval_s * share)
        share = random.uniform(0.8, 1.2)
        try:
            report = await garbage.run()
        except FabricError as error:
            _log.warning("garbage collection was broken off: %s", error)
        else:
            _tell(report)


def _tell(report: Report) -> None:
    if report.freed or report.discarded_uploads:
        _log.info(
            "garbage collection freed %d blobs and manifests with %d bytes, and %d abandoned uploads",
            report.freed, report.freed_bytes, report.discarded_uploads,
        )  # fmt: skip
    for problem in report.problems:
        _log.error("garbage collection: %s", problem)
