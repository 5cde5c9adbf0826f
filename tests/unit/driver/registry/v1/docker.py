"""Images as Docker 1.5 had them, and a client that pushes and pulls them step by step."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from fabric.driver.registry.access.gate import Gate
from fabric.driver.registry.access.load import load_access
from fabric.driver.registry.http import serve
from fabric.settings import Settings
from tests.unit.driver.registry.harness import Answer, Registry
from tests.unit.driver.registry.memory_store import MemoryStore


def layer_of(files: dict[str, bytes], *, compress: bool = True, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar file with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(data), 1_400_000_000, "root"
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0) if compress else buffer.getvalue()


@dataclass(frozen=True)
class Image:
    """An image: its id is random in Docker 1.5; here it is made from a text."""

    text: str
    parent: str = ""
    layer: bytes = b""

    @property
    def id(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def json(self) -> bytes:
        said = {"id": self.id, "created": "2015-02-10T00:00:00Z", "container_config": {"Cmd": [self.text]}}
        return json.dumps({**said, "parent": self.parent} if self.parent else said, indent=1).encode()

    @property
    def payload(self) -> str:
        return "sha256:" + hashlib.sha256(self.json + b"\n" + self.layer).hexdigest()


def chain(count: int, text: str = "image") -> list[Image]:
    """So many images, each on the one before; the first one first."""
    images: list[Image] = []
    for number in range(count):
        layer = layer_of({f"etc/{text}-{number}": b"content of %d" % number})
        images.append(Image(f"{text}-{number}", images[-1].id if images else "", layer))
    return images


@dataclass
class Docker:
    """What Docker 1.5 sends: a login where it is asked about repositories, then the token it was given."""

    registry: Registry
    login: dict[str, str] = field(default_factory=dict)
    token: str = ""
    gate: Gate = field(default_factory=Gate)

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """A request with the token."""
        headers = {"Authorization": f"Token {self.token}"} if self.token else {}
        headers |= options.pop("headers", {})
        return await self.registry.call(method, f"/v1/{path}", headers=headers, **options)

    async def open(self, method: str, path: str, **options: Any) -> Answer:
        """A request with the login, which asks for a token."""
        headers = {"X-Docker-Token": "true", **self.login}
        answer = await self.registry.call(method, f"/v1/{path}", headers=headers, **options)
        self.token = answer.headers.get("X-Docker-Token", self.token)
        return answer

    async def announce(self, name: str, images: list[Image]) -> Answer:
        listed = [{"id": image.id, "Tag": "latest"} for image in images]
        return await self.open("PUT", f"repositories/{name}/", data=json.dumps(listed).encode())

    async def put_json(self, image: Image) -> Answer:
        return await self.ask("PUT", f"images/{image.id}/json", data=image.json)

    async def put_layer(self, image: Image) -> Answer:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(image.layer), 65_536):
                yield image.layer[start : start + 65_536]

        return await self.ask("PUT", f"images/{image.id}/layer", data=pieces())

    async def put_checksum(self, image: Image, **headers: str) -> Answer:
        sent = headers or {"X-Docker-Checksum-Payload": image.payload}
        named = {name.replace("_", "-"): text for name, text in sent.items()}
        return await self.ask("PUT", f"images/{image.id}/checksum", headers=named)

    async def put_image(self, image: Image) -> bool:
        """Push one image, unless the registry has it; whether it was sent."""
        if (await self.ask("GET", f"images/{image.id}/json")).status == 200:
            return False
        answer = await self.put_json(image)
        if answer.status == 409 and answer.json["error"] == "Image already exists":
            return False
        for done in (answer, await self.put_layer(image), await self.put_checksum(image)):
            assert done.status == 200, done.body
        return True

    async def put_tag(self, name: str, tag: str, image: Image) -> Answer:
        return await self.ask("PUT", f"repositories/{name}/tags/{tag}", data=f'"{image.id}"'.encode())

    async def push(self, name: str, tag: str, images: list[Image]) -> int:
        """Push all, first one first, and tag the last; returns how many were sent."""
        answer = await self.announce(name, images)
        assert answer.status == 200, answer.body
        assert answer.headers["X-Docker-Endpoints"]
        sent = sum([await self.put_image(image) for image in images])
        answer = await self.put_tag(full(name), tag, images[-1])
        assert answer.status == 200, answer.body
        listed = [{"id": image.id, "checksum": image.payload} for image in images]
        answer = await self.open("PUT", f"repositories/{name}/images", data=json.dumps(listed).encode())
        assert answer.status == 204, answer.body
        return sent

    async def pull(self, name: str, tag: str) -> dict[str, tuple[bytes, bytes]]:
        """Each image's JSON and layer, the newest first."""
        answer = await self.open("GET", f"repositories/{name}/images")
        assert answer.status == 200, answer.body
        tags = await self.ask("GET", f"repositories/{full(name)}/tags")
        assert tags.status == 200, tags.body
        ancestry = await self.ask("GET", f"images/{tags.json[tag]}/ancestry")
        assert ancestry.status == 200, ancestry.body
        found = {}
        for image in ancestry.json:
            said = await self.ask("GET", f"images/{image}/json")
            layer = await self.ask("GET", f"images/{image}/layer")
            assert (said.status, layer.status) == (200, 200)
            assert said.headers["X-Docker-Size"] == str(len(layer.body))
            found[image] = (said.body, layer.body)
        return found


def full(name: str) -> str:
    """Docker puts ``library/`` before a name of one component when it speaks of tags."""
    return name if "/" in name else f"library/{name}"


@asynccontextmanager
async def legacy(
    access: Path | None = None, store: MemoryStore | None = None, settings: Settings | None = None
) -> AsyncIterator[Docker]:
    """A registry with the first protocol, and a client of it."""
    gate = Gate(load_access(access)) if access is not None else Gate()
    store = store or MemoryStore()
    runner = await serve(store, settings or Settings(), "127.0.0.1", 0, gate, v1=True)
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Docker(Registry(store, runner.addresses[0][1], session), gate=gate)
    finally:
        await runner.cleanup()
