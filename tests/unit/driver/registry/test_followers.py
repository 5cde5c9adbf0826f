"""The tasks that compute digests of uploads in parts: woken, broken off, gone on with, ended."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fabric.driver.registry import followers as module
from fabric.driver.registry.followers import Followers
from fabric.driver.registry.following import CLAIM, DIGESTED, Claims
from fabric.driver.registry.hashing import digests_on
from fabric.driver.registry.names import upload_path
from fabric.errors import Unavailable
from fabric.wire.messages import AppendOperation, DeleteOperation
from tests.unit.driver.registry.harness import asynchronous, sha256
from tests.unit.driver.registry.memory_store import MemoryStore

UPLOAD = "00000001-0000-0000-0000-000000000001"
PATH = upload_path(UPLOAD)


class Bench:
    """An upload in a store, and the tasks of one process."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.store = MemoryStore()
        self.data = b""
        self.followers = Followers(
            self.store, digests_on(executor), Claims("this", lambda: time.time_ns() // 1_000_000)
        )

    async def begin(self) -> None:
        await self.store.put(PATH, b"")

    async def grow(self, data: bytes) -> None:
        fragments = list(await self.store.stage(data))
        self.store.run([AppendOperation(PATH, fragments, len(self.data))])
        self.data += data

    def follow(self) -> None:
        self.followers.follow(UPLOAD, "sha256")

    async def level(self) -> None:
        """Until the digest of everything is noted."""
        wanted = f"{len(self.data)} {sha256(self.data).removeprefix('sha256:')}"
        async with asyncio.timeout(10):
            while (self.store.entries[PATH].attributes or {}).get(DIGESTED) != wanted:
                rounds = self.followers.rounds(UPLOAD)
                assert rounds >= 0, "it is followed"
                await self.followers.wait(UPLOAD, rounds, 0.5)

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            while (rounds := self.followers.rounds(UPLOAD)) >= 0:
                await self.followers.wait(UPLOAD, rounds, 0.5)


async def with_bench(work: Any) -> None:
    with ThreadPoolExecutor(2) as executor:
        bench = Bench(executor)
        await bench.begin()
        try:
            await work(bench)
        finally:
            await bench.followers.close()
            assert bench.followers.rounds(UPLOAD) == -1


@asynchronous
async def test_it_follows_what_is_joined_here_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(bench: Bench) -> None:
        await bench.grow(b"one")
        bench.follow()
        await bench.level()
        await bench.grow(b"two")
        bench.follow()
        await bench.level()
        await bench.grow(b"three")  # by another process: nobody wakes it
        await bench.level()

    monkeypatch.setattr(module, "LOOK_S", 0.05)
    await with_bench(work)


@asynchronous
async def test_it_ends_with_its_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(bench: Bench) -> None:
        await bench.grow(b"one")
        bench.follow()
        await bench.level()
        bench.store.run([DeleteOperation(PATH)])
        await bench.ended()

    monkeypatch.setattr(module, "LOOK_S", 0.05)
    await with_bench(work)


@asynchronous
async def test_it_ends_when_another_process_has_taken_over_and_when_nothing_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(bench: Bench) -> None:
        await bench.grow(b"one")
        bench.follow()
        await bench.level()
        bench.store.run([AppendOperation(PATH, [], 3, {CLAIM: f"other {2**50}"})])
        await bench.ended()
        bench.store.run([AppendOperation(PATH, [], 3, {CLAIM: "other 0"})])
        monkeypatch.setattr(module, "IDLE_S", 0.1)
        bench.follow()
        await bench.ended()

    monkeypatch.setattr(module, "LOOK_S", 0.05)
    await with_bench(work)


@asynchronous
async def test_after_an_error_it_goes_on_from_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    async def work(bench: Bench) -> None:
        open_at_once = bench.store.open

        async def noted(path: str, offset: int = 0, length: int | None = None) -> object:
            opened.append(offset)
            return await open_at_once(path, offset, length)

        monkeypatch.setattr(bench.store, "open", noted)
        await bench.grow(b"one")
        bench.follow()
        await bench.level()
        bench.store.fail("stat", Unavailable("no master"), times=1)
        bench.follow()
        with pytest.raises(Unavailable):
            await bench.ended()
        await bench.grow(b"two")
        bench.follow()
        await bench.level()

    await with_bench(work)
    assert opened == [0, 3]


@asynchronous
async def test_waiting_has_a_limit() -> None:
    async def work(bench: Bench) -> None:
        assert await bench.followers.wait(UPLOAD, 0, 0.01), "nobody follows it: nothing to wait for"
        bench.follow()
        async with asyncio.timeout(10):
            while not (rounds := bench.followers.rounds(UPLOAD)):
                await bench.followers.wait(UPLOAD, 0, 0.5)
        assert not await bench.followers.wait(UPLOAD, rounds + 1_000, 0.05)

    await with_bench(work)
