"""A receiver of notifications on a loopback port, and registries that tell it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import SSLContext
from typing import Any

import aiohttp
from aiohttp import web

from fabric.driver.registry.access.gate import Gate
from fabric.driver.registry.hooks.load import HooksFile, load_hooks
from fabric.driver.registry.hooks.service import Hooks
from fabric.driver.registry.http import serve
from fabric.settings import Settings
from tests.unit.driver.registry.harness import Registry
from tests.unit.driver.registry.memory_store import MemoryStore

PATIENCE_S = 20.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """Keeps every request; answers 200, or as ``answer`` says."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.accepted: list[dict[str, Any]] = []
        """Events of requests that were answered with 2xx."""
        self.statuses: list[int] = []
        """What to answer next; 200 when there is none."""
        self.answer: Handler | None = None
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._news = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    async def start(self, tls: SSLContext | None = None) -> None:
        """On its port, which is chosen at the first start."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        self._news.set()
        if self.answer is not None:
            return await self.answer(request)
        status = self.statuses.pop(0) if self.statuses else 200
        if 200 <= status < 300:
            self.accepted += json.loads(body)["events"]
        return web.Response(status=status, headers={"Location": self.url} if 300 <= status < 400 else {})

    async def until(self, condition: Callable[[Receiver], bool]) -> None:
        """Wait for requests that make it true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                self._news.clear()
                await self._news.wait()
                await asyncio.sleep(0)

    async def until_accepted(self, count: int) -> list[dict[str, Any]]:
        await self.until(lambda self: len(self.accepted) >= count)
        return self.accepted


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


def hooks_file(directory: Path, *hooks: str, **files: bytes) -> Path:
    """A file of hooks, each the lines of its table, and files beside it."""
    for name, content in files.items():
        (directory / name).write_bytes(content)
    path = directory / "hooks.toml"
    path.write_text("".join(f"[[hook]]\n{hook}\n" for hook in hooks))
    return path


@asynccontextmanager
async def telling(
    file: Path | None, store: MemoryStore | None = None, settings: Settings | None = None
) -> AsyncIterator[Registry]:
    """A registry with that file of hooks, or with none."""
    store = store or MemoryStore()
    loaded: HooksFile | None = load_hooks(file) if file is not None else None
    hooks = Hooks(loaded, "registry.test:5000")
    runner = await serve(store, settings or Settings(), "127.0.0.1", 0, Gate(), hooks=hooks)
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            registry = Registry(store, runner.addresses[0][1], session)
            registry.hooks = hooks  # type: ignore[attr-defined]
            yield registry
    finally:
        await runner.cleanup()
