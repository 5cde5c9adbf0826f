"""Quotas in a registry process: they take effect, are counted, and commits wait for their turns."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.background import pace_of
from fabric.driver.registry.bookkeeping import Stamper
from fabric.driver.registry.quota.accounts import AccountedStore, Memory
from fabric.driver.registry.quota.book import declare
from fabric.driver.registry.quota.counting import Counting
from fabric.driver.registry.quota.quotas import Quota
from fabric.errors import FabricError
from fabric.settings import Settings

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


def accounted(store: ObjectStore) -> AccountedStore:
    """The store, with commits that keep the accounts."""
    return AccountedStore(store, Memory(Locks().turns))


class QuotaKeeper:
    """Sees to it that what the access file says of quotas holds, and that new ones are counted.

    ``wanted`` is what the file says now; None when it says nothing, and what holds goes on to hold.
    """

    def __init__(
        self,
        store: AccountedStore,
        stamper: Stamper,
        settings: Settings,
        wanted: Callable[[], Sequence[Quota] | None],
    ) -> None:
        pause = pace_of(settings.gc_pause_s).pause
        self._store = store
        self._counting = Counting(store, stamper, settings.manifest_bytes_max, pause)
        self._wanted = wanted
        self._new_id = stamper.new_id
        self._changed = asyncio.Event()

    def look_again(self) -> None:
        """The access file was read again."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled.  What fails is a warning, and tried again."""
        if self._wanted() is None:
            # Nothing to declare; only what another left unfinished, and not all processes at once.
            await self._wait(AGAIN_AFTER_S * random.random())
        is_declared = False
        while True:
            try:
                if not is_declared:
                    await self._declare()
                    is_declared = True
                await self._counting.run()
                wait_s = AGAIN_AFTER_S
            except FabricError as error:
                _log.warning("the quotas could not be counted, and will be again: %s", error)
                wait_s = AGAIN_AFTER_ERROR_S
            if await self._wait(wait_s):
                self._changed.clear()
                is_declared = False

    async def _wait(self, seconds: float) -> bool:
        """Until the access file has changed, but not longer; whether it has."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        return self._changed.is_set()

    async def _declare(self) -> None:
        wanted = self._wanted()
        if wanted is not None:
            await declare(self._store, wanted, self._new_id)
