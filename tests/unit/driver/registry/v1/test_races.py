"""Pushes, tags and deletions of the first protocol, all at once: what holds after any order of steps."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from fabric.driver.object_store import Buffer
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.v1.checksums import parse_checksum
from fabric.driver.registry.v1.pushes import Pushes
from fabric.driver.registry.v1.repositories import Repositories
from fabric.driver.registry.v1.visitor import Visitor
from fabric.errors import Unavailable
from fabric.wire.messages import AnyOperation, ObjectInfo
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.v1.docker import Image, chain

NAMES = ("app", "team/app", "team/tool")


class Digest:
    """SHA-256 in place."""

    algorithm = "sha256"

    def __init__(self, algorithm: str) -> None:
        self.size = 0
        self._inner = hashlib.sha256()

    async def update(self, data: Buffer) -> None:
        self._inner.update(data)
        self.size += len(data)

    async def settle(self) -> None: ...

    def copy(self) -> Digest:
        raise AssertionError("nobody copies it here")

    def value(self) -> str:
        return self._inner.hexdigest()


class Shuffled(MemoryStore):
    """Lets others go first before each step, as often as the dice say; checks what each commit leaves."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def _yield(self) -> None:
        for _ in range(self._rng.choice((0, 0, 1, 2, 5, 20, 300))):
            await asyncio.sleep(0)

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        await self._yield()
        infos = await super().commit(operations)
        check_links(self)
        return infos

    async def stat(self, path: str) -> ObjectInfo:
        info = await super().stat(path)
        await self._yield()
        return info


class World:
    """One store, and clients that push, tag and delete."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = Shuffled(self.rng)

        async def no_sum(path: str, image_json: bytes, kind: str) -> str:
            raise AssertionError("nobody sends a tarsum here")

        def new_id() -> str:
            return f"{self.rng.getrandbits(128):032x}"

        self.pushes = Pushes(self.store, Digest, no_sum, new_id, lambda: 0)
        self.repositories = Repositories(self.store)
        common = chain(3, "common")
        self.chains = [[*common, Image(f"top-{number}", common[-1].id, b"layer")] for number in range(3)]
        self.done = {"pushed": 0, "tagged": 0, "deleted": 0, "refused": 0}

    async def client(self) -> None:
        """A few steps, any of which may be refused because of what others do."""
        for _ in range(6):
            try:
                await self._step()
            except (RegistryError, Unavailable):
                self.done["refused"] += 1

    async def _step(self) -> None:
        name = self.rng.choice(NAMES)
        visitor = Visitor(lambda name: True, repository=name, is_trusted=True)
        images = self.rng.choice(self.chains)
        if self.rng.random() < 0.3:
            await self.repositories.delete(name, lambda tag: False)
            self.done["deleted"] += 1
            return
        await self.repositories.announce(name)
        if self.rng.random() < 0.6:
            for image in images:
                await self._push(visitor, image)
            self.done["pushed"] += 1
        await self.repositories.set_tag(visitor, name, "latest", images[-1].id, once=False)
        self.done["tagged"] += 1

    async def _push(self, visitor: Visitor, image: Image) -> None:
        try:
            await self.pushes.begin(visitor, image.id, image.json)
        except RegistryError as error:
            if error.status == 409:
                return
            raise
        push = await self.pushes.find(visitor, image.id)
        await self.pushes.take_layer(push, pieces(image.layer))
        await self.pushes.finish(visitor, image.id, parse_checksum(image.payload))


def check_links(store: MemoryStore) -> None:
    """What holds after every single commit, so that a process may die at any time."""
    paths = store.paths("v1/")
    images = {path.split("/")[2] for path in paths if path.startswith("v1/images/")}
    owners = {tuple(path.split("/", 3)[2:]) for path in paths if path.startswith("v1/owners/")}
    links = {
        (path.rpartition("/")[2], path.removeprefix("v1/repositories/").partition("/_images/")[0])
        for path in paths
        if "/_images/" in path
    }
    assert owners == links
    assert {f"v1/names/{name}" for _, name in links} <= set(paths), "a repository with images exists"
    assert {image for image, _ in links} == images, "no image without an owner, no owner without its image"
    for image in images:
        parts = {path.rpartition("/")[2] for path in store.paths(f"v1/images/{image}/")}
        assert parts == {"json", "layer", "ancestry", "links"}
    for image, name in links:
        for ancestor in json.loads(store.content(f"v1/images/{image}/ancestry")):
            assert (ancestor, name) in links, "a repository has all ancestors of its images"
    for path in paths:
        name, is_tag, _ = path.removeprefix("v1/repositories/").partition("/_tags/")
        if is_tag:
            tagged = (store.entries[path].attributes or {})["image"]
            assert (tagged, name) in links, "a tag names an image of its repository"


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.parametrize("seed", range(40))
def test_the_invariants_hold_after_any_order(seed: int) -> None:
    async def run() -> World:
        world = World(seed)
        await asyncio.gather(*(world.client() for _ in range(6)))
        return world

    world = asyncio.run(run())
    check_links(world.store)
    assert world.done["deleted"] + world.done["tagged"] > 0


def test_the_races_are_not_all_refused() -> None:
    """So that the test above tests something."""
    total = {"pushed": 0, "tagged": 0, "deleted": 0, "refused": 0}
    for seed in range(5):
        world = World(seed)

        async def run(world: World = world) -> None:
            await asyncio.gather(*(world.client() for _ in range(6)))

        asyncio.run(run())
        for key, count in world.done.items():
            total[key] += count
    assert min(total.values()) >= 10, total
