"""An upstream that counts what it is asked for, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from fabric.driver.registry.access.gate import Gate
from fabric.driver.registry.http import serve
from fabric.driver.registry.mirror.config import MirrorTable
from fabric.driver.registry.mirror.load import Mirror
from fabric.driver.registry.mirror.mirrors import Mirrors
from fabric.settings import Settings
from tests.unit.driver.registry.harness import OCI_MANIFEST, Registry, image, sha256
from tests.unit.driver.registry.memory_store import MemoryStore

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]

UNKNOWN = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "", "detail": None}]}


class FakeUpstream:
    """``blobs`` and ``manifests`` by digest or tag.  ``asked`` counts ``METHOD kind/reference``."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.headers: list[Any] = []
        self.answering: Answering | None = None
        """Answers instead, when it is set; may go on with ``usual``."""
        self.gate = asyncio.Event()
        """Blobs wait for it after their first half."""
        self.gate.set()
        self.port = 0
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def add_image(self, tag: str, *layers: bytes) -> bytes:
        config = b'{"of": "%s"}' % tag.encode()
        for data in (config, *layers):
            self.blobs[sha256(data)] = data
        manifest = image(config, list(layers))
        self.manifests[tag] = self.manifests[sha256(manifest)] = manifest
        return manifest

    async def answer(self, request: web.Request) -> web.StreamResponse:
        kind = request.path.split("/")[-2]
        self.asked[f"{request.method} {kind}"] += 1
        self.headers.append(request.headers)
        return await (self.answering or self.usual)(request)

    async def usual(self, request: web.Request) -> web.StreamResponse:
        kind, reference = request.path.rsplit("/", 2)[1:]
        found = self.manifests if kind == "manifests" else self.blobs
        data = found.get(reference)
        if data is None:
            return web.json_response(UNKNOWN, status=404)
        etag = f'"{sha256(data)}"'
        headers = {"Docker-Content-Digest": sha256(data), "ETag": etag}
        if kind == "manifests":
            headers["Content-Type"] = OCI_MANIFEST
            if request.headers.get("If-None-Match") == etag:
                return web.Response(status=304, headers=headers)
            return web.Response(body=data, headers=headers)
        return await self.send_blob(request, data)

    async def send_blob(
        self, request: web.Request, data: bytes, *, says: int = -1, cut_at: int = -1
    ) -> web.StreamResponse:
        """All of it; or one that says another length, or breaks off."""
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response.content_length = (says if says >= 0 else len(data)) - start
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        middle = max(start, len(data) // 2)
        await response.write(data[start : cut_at if cut_at >= 0 else middle])
        if cut_at >= 0:
            assert request.transport is not None
            request.transport.close()
            return response
        await self.gate.wait()
        await response.write(data[middle:])
        return response


@asynccontextmanager
async def fake_upstream(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    fake.scheme = "https" if tls is not None else "http"
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        fake.gate.set()
        await runner.cleanup()


@asynccontextmanager
async def mirror_of(
    url: str,
    *,
    store: MemoryStore | None = None,
    gate: Gate | None = None,
    username: str = "",
    trusted: ssl.SSLContext | None = None,
    v1: bool = False,
    **options: Any,
) -> AsyncIterator[Registry]:
    """A registry whose ``hub/**`` mirrors ``url``."""
    table = MirrorTable("hub/**", url, **{"timeout_s": 2.0, **options})
    mirrors = Mirrors([Mirror(table, username, "word" if username else "", trusted)])
    store = store or MemoryStore()
    runner = await serve(store, Settings(), "127.0.0.1", 0, gate, mirrors=mirrors, v1=v1)
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Registry(store, runner.addresses[0][1], session)
    finally:
        await runner.cleanup()


def random_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes that no part of which looks like another."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size)
