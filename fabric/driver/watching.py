"""Keeps a ``NameCache`` true: asks the master all the time what has changed, and tells the cache."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fabric.driver.name_cache import NameCache
from fabric.errors import FabricError
from fabric.wire.messages import Changes, Watch

PAUSE_S = 0.2
"""After a question that could not be answered."""
PAUSE_WITHOUT_S = 30.0
"""After one that will not be answered: a master of an earlier version."""

log = logging.getLogger(__name__)

Ask = Callable[[Watch], Coroutine[Any, Any, Changes]]


async def keep_watching(
    ask: Ask, cache: NameCache, prefixes: Sequence[str], monotonic_s: Callable[[], float]
) -> None:
    """Until cancelled.  Without answers the cache ends to be used when its lease is over."""
    watcher = secrets.token_bytes(16)
    seen = 0
    is_away = False
    while True:
        asked_at = monotonic_s()
        try:
            changes = await ask(Watch(0, watcher, seen, list(prefixes)))
        except FabricError as error:
            if not is_away:
                log.warning("names are not kept in memory for now: %s", error.message)
            is_away = True
            await asyncio.sleep(PAUSE_S if error.retryable else PAUSE_WITHOUT_S)
            continue
        if is_away:
            log.info("names are kept in memory again")
            is_away = False
        cache.on_changes(changes, asked_at)
        seen = changes.sequence
