"""Quotas in a registry process: they take effect, are counted, and commits wait for their turns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fabric.driver.registry.quota.accounts import AccountedStore
from fabric.driver.registry.quota.book import declare
from fabric.driver.registry.quota.counting import Counting
from fabric.driver.registry.quota.quotas import Quota
from fabric.errors import FabricError

AGAIN_AFTER_S = 60.0
"""A count that a process left unfinished is taken up by another after this time at most."""

AGAIN_AFTER_ERROR_S = 2.0

_log = logging.getLogger(__name__)


class Locks:
    """One lock for each account: commits of one process that change a total wait for each other."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def turns(self, accounts: Sequence[str]) -> AsyncIterator[None]:
        """Hold the locks of these accounts, whose ids come in order."""
        async with AsyncExitStack() as stack:
            for account in accounts:
                await stack.enter_async_context(self._locks.setdefault(account, asyncio.Lock()))
            yield


class QuotaKeeper:
    """Sees to it that what the access file says of quotas holds, and that new ones are counted.

    ``wanted`` is what the file says now; None when it says nothing, and what holds goes on to hold.
    """

    def __init__(
        self,
        store: AccountedStore,
        counting: Counting,
        wanted: Callable[[], Sequence[Quota] | None],
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._counting = counting
        self._wanted = wanted
        self._new_id = new_id
        self._changed = asyncio.Event()

    def look_again(self) -> None:
        """The access file was read again."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled.  What fails is a warning, and tried again."""
        is_declared = False
        while True:
            if self._changed.is_set():
                self._changed.clear()
                is_declared = False
            wait_s = AGAIN_AFTER_S
            try:
                if not is_declared:
                    await self._declare()
                    is_declared = True
                await self._counting.run()
            except FabricError as error:
                _log.warning("the quotas could not be counted, and will be again: %s", error)
                wait_s = AGAIN_AFTER_ERROR_S
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s)
            except TimeoutError:
                continue

    async def _declare(self) -> None:
        wanted = self._wanted()
        if wanted is not None:
            await declare(self._store, wanted, self._new_id)
