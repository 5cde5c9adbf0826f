"""The webhooks of one registry process: who has to be told what, and the tasks that tell them.

A process that was started with a file of hooks delivers for those.  Every process, with a file or without,
puts events into the outbox for all hooks that the store knows of.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Protocol

from aiohttp import web

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.hooks.changes import Change
from fabric.driver.registry.hooks.courier import POLL_S, Clocks, Courier, drop_orphans
from fabric.driver.registry.hooks.http_origin import origin_of
from fabric.driver.registry.hooks.load import Hook, HooksFile
from fabric.driver.registry.hooks.origin import originating
from fabric.driver.registry.hooks.outbox import OUTBOX_PREFIX, Announcer, Entry, Source
from fabric.driver.registry.hooks.pulls import Pulls
from fabric.driver.registry.hooks.sender import Sender
from fabric.driver.registry.hooks.wishes import VOID_AFTER_S, Wish, merged, publish_wishes, read_wishes
from fabric.driver.registry.manifest_store import StoredManifest
from fabric.driver.registry.names import is_tag
from fabric.driver.registry.routes import Endpoint, Route
from fabric.errors import FabricError

STOP_S = 1.0
"""What is being delivered at the end of the process may arrive within so long."""

_ORPHANS_KEPT_S = 3600.0
"""An entry for a hook that nobody knows: a registry with another file may be about to start."""

_log = logging.getLogger(__name__)


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_token() -> str:
    """A random id."""
    return str(uuid.uuid4())


class _Stepper(Protocol):
    async def step(self) -> float: ...


class _Desk:
    """All that belongs to one hook: its connections, its couriers and their tasks."""

    def __init__(self, store: ObjectStore, hook: Hook, registry_url: str, me: str) -> None:
        self.wish = hook.wish
        self._sender = Sender(hook)
        clocks = Clocks(time.monotonic, wall_ms, random.Random())
        send, timeout_s = self._sender.send, hook.table.timeout_s
        self._courier = Courier(
            store, hook.wish, registry_url, send, timeout_s, me, clocks, warn=_log.warning
        )
        self.pulls = Pulls(store, hook.name, registry_url, send, clocks, warn=_log.warning)
        self.has_written = asyncio.Event()
        self.was_pulled = asyncio.Event()
        self._is_stopping = False
        self._tasks = [asyncio.create_task(self._run(self._courier, self.has_written))]
        if "pull" in hook.table.events:
            self._tasks.append(asyncio.create_task(self._run(self.pulls, self.was_pulled)))

    async def _run(self, stepper: _Stepper, wake: asyncio.Event) -> None:
        while True:
            wake.clear()
            try:
                wait_s = await stepper.step()
            except FabricError as error:
                _log.warning("hook %s: %s", self.wish.name, error)
                wait_s = POLL_S
            if wait_s > 0:
                if self._is_stopping:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s * random.uniform(0.8, 1.0)):
                        await wake.wait()

    async def close(self) -> None:
        """Let what is being sent arrive, if that is soon, and others go on."""
        self._is_stopping = True
        self.has_written.set()
        self.was_pulled.set()
        _, late = await asyncio.wait(self._tasks, timeout=STOP_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(STOP_S):
                await self._courier.release()
                await self.pulls.end()
        except (FabricError, TimeoutError) as error:
            _log.warning("hook %s: %s", self.wish.name, error or "the store does not answer")
        await self._sender.close()


class Hooks:
    """One for each registry process.  ``file``: None where it was started without one."""

    def __init__(self, file: HooksFile | None, addr: str) -> None:
        self._file = file
        self._source = Source(addr, new_token())
        self._store: ObjectStore | None = None
        self._known: Mapping[str, Wish] | None = None
        """What the store knows of; None until it was asked."""
        self._desks: dict[str, _Desk] = {}
        self._swap: asyncio.Task[None] | None = None
        self._file_changed = asyncio.Event()
        self._is_ending = False

    # --- events -----------------------------------------------------------------------------------

    def announcing(self, store: ObjectStore) -> ObjectStore:
        """The store, with commits that put events into the outbox."""
        self._store = store
        return Announcer(store, self._wishes, self._source, wall_ms, new_token, written=self._wake)

    def origin(self, request: web.Request, route: Route) -> AbstractContextManager[None]:
        """While it is open, commits are known to be of that request."""
        if route.endpoint is not Endpoint.MANIFEST or request.method not in ("PUT", "DELETE"):
            return nullcontext()
        return originating(origin_of(request))

    def pulled(self, request: web.Request, route: Route, found: StoredManifest) -> None:
        """Tell hooks that want to know of pulls.  Never waits."""
        desks = [each for each in self._desks.values() if each.wish.wants("pull", route.name)]
        if not desks:
            return
        origin = origin_of(request)
        tags = (route.reference,) if is_tag(route.reference) else ()
        change = Change(
            "pull", route.name, str(found.digest), found.media_type, found.size, tags, origin.user
        )
        entry = Entry(new_token(), wall_ms(), (change,), origin, self._source)
        for desk in desks:
            desk.pulls.offer(entry)
            desk.was_pulled.set()

    def _own(self) -> list[Wish]:
        return [hook.wish for hook in self._file.hooks] if self._file is not None else []

    async def _wishes(self) -> Mapping[str, Wish]:
        """Of all hooks.  Raises FabricError when the store has to be asked and does not answer."""
        if self._known is None:
            await self._learn()
        assert self._known is not None
        return merged(self._own(), self._known)

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._desks:
                self._desks[name].has_written.set()

    # --- life -------------------------------------------------------------------------------------

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """Deliver while the application runs.  ``announcing`` must have been called."""
        self._open_desks()
        keeper = asyncio.create_task(self._keep_wishes())
        yield
        self._is_ending = True
        keeper.cancel()
        await asyncio.gather(keeper, *filter(None, [self._swap]), return_exceptions=True)
        await self._close_desks()

    def replace(self, file: HooksFile) -> None:
        """From now on this file holds.  Needs a running event loop."""
        if self._is_ending:
            return
        self._file = file
        self._file_changed.set()
        before = self._swap
        self._swap = asyncio.create_task(self._reopen(before))

    async def _reopen(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        await self._close_desks()
        self._open_desks()

    def _open_desks(self) -> None:
        assert self._store is not None
        file = self._file if self._file is not None else HooksFile()
        self._desks = {
            hook.name: _Desk(self._store, hook, file.registry_url, self._source.instance)
            for hook in file.hooks
        }

    async def _close_desks(self) -> None:
        desks, self._desks = self._desks, {}
        await asyncio.gather(*(desk.close() for desk in desks.values()))

    async def _keep_wishes(self) -> None:
        """Tell the store what the file says, learn what other processes' files say, tidy up."""
        while True:
            self._file_changed.clear()
            try:
                if self._file is not None:
                    assert self._store is not None
                    await publish_wishes(self._store, self._own(), wall_ms())
                await self._learn()
                await self._tidy()
            except FabricError as error:
                _log.warning("webhooks: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S * random.uniform(0.8, 1.0)):
                    await self._file_changed.wait()

    async def _learn(self) -> None:
        assert self._store is not None
        self._known = (await read_wishes(self._store)).in_force(wall_ms())

    async def _tidy(self) -> None:
        """Give up what waits for hooks that no registry delivers for any more."""
        assert self._store is not None
        wishes = await self._wishes()
        page = await self._store.list(OUTBOX_PREFIX, delimiter="/")
        for folded in page.prefixes:
            name = folded.removeprefix(OUTBOX_PREFIX).rstrip("/")
            if name in self._desks:
                continue
            kept_s = wishes[name].retry_for_s + VOID_AFTER_S if name in wishes else _ORPHANS_KEPT_S
            await drop_orphans(self._store, name, wall_ms() - int(kept_s * 1000), warn=_log.warning)
