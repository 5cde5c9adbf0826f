"""A registry on a loopback port over a store in memory, and a client for it."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from fabric.driver.registry.http import serve
from fabric.settings import Settings
from tests.unit.driver.registry.memory_store import MemoryStore

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a coroutine test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        return [entry["code"] for entry in self.json["errors"]]


@dataclass
class Registry:
    store: MemoryStore
    port: int
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        url = f"http://127.0.0.1:{self.port}{path}"
        if isinstance(options.get("data"), bytes):
            options["data"] = io.BytesIO(options["data"])  # the client warns of large plain bytes
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def raw(self, request: bytes) -> Answer:
        """Send these bytes and read one answer, or what there is of it when the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            await writer.drain()
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                status, *fields = head.decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in fields)}
                try:
                    body = await reader.readexactly(int(headers.get("content-length", "0")))
                except asyncio.IncompleteReadError as error:
                    body = error.partial
        finally:
            writer.close()
        return Answer(int(status.split(" ")[1]), headers, body)

    async def raw_path(self, method: str, path: str) -> Answer:
        """A request whose path no client library has touched."""
        lines = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        return await self.raw(lines.encode())

    # --- usual steps ------------------------------------------------------------------------------

    async def start_upload(self, name: str = "app", query: str = "") -> str:
        answer = await self.call("POST", f"/v2/{name}/blobs/uploads/{query}")
        assert answer.status == 202, answer.body
        return str(answer.headers["Location"])

    async def push_blob(self, data: bytes, name: str = "app") -> str:
        location = await self.start_upload(name)
        answer = await self.call("PUT", f"{location}?digest={sha256(data)}", data=data)
        assert answer.status == 201, answer.body
        return sha256(data)

    async def push_manifest(self, data: bytes, reference: str, name: str = "app", **options: Any) -> Answer:
        media_type = options.pop("media_type", OCI_MANIFEST)
        headers = {"Content-Type": media_type}
        return await self.call(
            "PUT", f"/v2/{name}/manifests/{reference}", data=data, headers=headers, **options
        )

    async def push_image(self, text: str = "layer", tag: str = "latest", name: str = "app") -> bytes:
        """A config, a layer and a manifest with odd spacing; returns the manifest's bytes."""
        config, layer = b'{"of": "%s"}' % text.encode(), text.encode()
        await self.push_blob(config, name)
        await self.push_blob(layer, name)
        manifest = image(config, [layer])
        answer = await self.push_manifest(manifest, tag, name)
        assert answer.status == 201, answer.body
        return manifest


def descriptor(data: bytes, media_type: str = "application/octet-stream", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def image(config: bytes, layers: list[bytes], /, **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer) for layer in layers],
        **more,
    }
    return json.dumps(document, indent=3).encode() + b"\n \n"


def index(manifests: list[bytes], /, **more: Any) -> bytes:
    children = [descriptor(child, OCI_MANIFEST) for child in manifests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children, **more}
    return json.dumps(document).encode()


@asynccontextmanager
async def registry(
    store: MemoryStore | None = None, settings: Settings | None = None
) -> AsyncIterator[Registry]:
    store = store or MemoryStore()
    runner = await serve(store, settings or Settings(), "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Registry(store, runner.addresses[0][1], session)
    finally:
        await runner.cleanup()


def refused(status: int, code: str, answer: Answer) -> None:
    """The answer is this error, in the specification's form."""
    assert (answer.status, answer.codes[0]) == (status, code), answer.body
    assert set(answer.json["errors"][0]) == {"code", "message", "detail"}
