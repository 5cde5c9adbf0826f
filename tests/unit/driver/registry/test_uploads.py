"""Rules of uploads that need a clock in hand, and not HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.hashing import digests_on
from fabric.driver.registry.uploads import Uploads
from tests.unit.driver.registry.harness import asynchronous
from tests.unit.driver.registry.memory_store import MemoryStore


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0
        self.ids = 0

    def monotonic_s(self) -> float:
        return self.s

    def wall_ms(self) -> int:
        return int(self.s * 1000)

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:032x}"


def uploads_over(store: MemoryStore, clock: Clock, executor: ThreadPoolExecutor) -> Uploads:
    return Uploads(store, digests_on(executor), clock.new_id, clock.monotonic_s, clock.wall_ms)


@asynchronous
async def test_abandoned_uploads_expire_and_young_ones_stay() -> None:
    store, clock = MemoryStore(), Clock()
    with ThreadPoolExecutor(1) as executor:
        uploads = uploads_over(store, clock, executor)
        old = await uploads.start("app", "sha256")
        clock.s += 100
        young = await uploads.start("app", "sha256")
        clock.s += 50

        assert await uploads.expire(idle_max_s=100) == 1

        with pytest.raises(RegistryError):
            await uploads.find("app", old.upload_id)
        assert await uploads.find("app", young.upload_id) == young
        assert await uploads.expire(idle_max_s=100) == 0


@asynchronous
async def test_an_upload_that_grows_while_it_expires_is_kept() -> None:
    store, clock = MemoryStore(), Clock()
    with ThreadPoolExecutor(1) as executor:
        uploads = uploads_over(store, clock, executor)
        upload = await uploads.start("app", "sha256")
        clock.s += 1000
        commit = store.commit

        async def grow_first(operations):  # type: ignore[no-untyped-def]
            store.commit = commit  # type: ignore[method-assign]
            await uploads.append(upload, pieces(b"alive"), None)
            return await commit(operations)

        store.commit = grow_first  # type: ignore[method-assign]
        assert await uploads.expire(idle_max_s=100) == 0
        assert (await uploads.find("app", upload.upload_id)).size == 5


@asynchronous
async def test_expiry_goes_through_all_pages() -> None:
    store, clock = MemoryStore(), Clock()
    with ThreadPoolExecutor(1) as executor:
        uploads = uploads_over(store, clock, executor)
        for _ in range(2100):
            await uploads.start("app", "sha256")
        clock.s += 1000
        assert await uploads.expire(idle_max_s=100) == 2100
        assert store.paths() == []


async def pieces(*parts: bytes):  # type: ignore[no-untyped-def]
    for part in parts:
        yield part
