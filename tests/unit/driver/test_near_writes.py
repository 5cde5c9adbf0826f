"""Fragments that stay in the driver's memory: what is stored is what was written, wherever it travelled."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import xxhash

from fabric.driver import near_writes as module
from fabric.driver.fabric_store import FabricStore
from fabric.driver.near_writes import BLOCKS_MAX, IDLE_S, REST_S, SHARED_BYTES_MIN, NearWrites
from fabric.errors import FabricError, MemoryGone
from fabric.node.effects import Effect, Sender
from fabric.node.shared_memory import NAME, SharedBytes
from fabric.settings import FRAGMENT_BYTES_MAX, MIB, Settings
from tests.unit.driver.fake_proxy import MemoryProxy
from tests.unit.node.echo import looping

DATA = random.Random(3).randbytes(FRAGMENT_BYTES_MAX)


class Proxy(MemoryProxy):
    """Reads payloads where they are; ``kinds``: how they came; ``fails``: what comes of reading memory."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[type] = []
        self.fails: FabricError | None = None

    def receive(self, message: Any, sender: Sender, now: float, payload: Any = None) -> list[Effect]:
        if payload is not None:
            self.kinds.append(type(payload))
        if isinstance(payload, SharedBytes):
            if self.fails is not None:
                self.refuse[type(message)] = self.fails
            payload = payload.joined()
        try:
            return super().receive(message, sender, now, payload)
        finally:
            self.refuse.clear()


def with_store(
    work: Callable[[FabricStore, Proxy], Awaitable[None]],
    settings: Settings | None = None,
    *,
    shares: bool = True,
) -> None:
    proxy = Proxy()

    async def run(endpoint: str) -> None:
        store = FabricStore(endpoint, settings or Settings(write_patience_s=1.0))
        await store.start()
        try:
            async with asyncio.timeout(20):
                await work(store, proxy)
        finally:
            await store.close()

    with looping(proxy, shares_memory=shares) as endpoint:
        asyncio.run(run(endpoint))


async def introduced(store: FabricStore, proxy: Proxy) -> None:
    """Until the first payload is read in memory."""
    while SharedBytes not in proxy.kinds:
        await store.put("first", DATA[:SHARED_BYTES_MIN])
    proxy.kinds.clear()


async def content(store: FabricStore, path: str) -> bytes:
    return (await store.read(path, 2**30))[1]


def memory_files() -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(NAME in os.readlink(link) for link in links if link.is_symlink())


def test_what_is_stored_is_what_was_written_in_any_pieces() -> None:
    whole = random.Random(7).randbytes(11 * MIB + 12_345)
    rng = random.Random(8)

    async def work(store: FabricStore, proxy: Proxy) -> None:
        await introduced(store, proxy)
        for number, size_max in enumerate((2000, 70_000, 5 * MIB)):
            path, position = f"object {number}", 0
            await store.put(path, b"")
            writer = store.writer(path, 0)
            while position < len(whole):
                size = rng.randrange(1, size_max)
                await writer.write(whole[position : position + size])
                position += size
            assert await writer.flush() == len(whole)
            assert await content(store, path) == whole
        assert proxy.kinds.count(SharedBytes) == 9

    with_store(work)


def test_small_payloads_are_sent_and_large_ones_of_both_kinds_are_not() -> None:
    async def work(store: FabricStore, proxy: Proxy) -> None:
        await introduced(store, proxy)
        for size in (0, 1, SHARED_BYTES_MIN - 1):
            await store.put("small", DATA[:size])
            assert await content(store, "small") == DATA[:size]
        assert SharedBytes not in proxy.kinds
        await store.put("large", DATA[:SHARED_BYTES_MIN])
        await store.store_fragment([memoryview(DATA)])
        assert proxy.kinds[-2:] == [SharedBytes] * 2

    with_store(work)


@pytest.mark.parametrize("side", ["driver", "proxy"])
def test_it_can_be_turned_off(side: str) -> None:
    async def work(store: FabricStore, proxy: Proxy) -> None:
        for _ in range(5):
            await store.put("large", DATA)
        assert await content(store, "large") == DATA
        assert SharedBytes not in proxy.kinds
        assert store._near_writes.count == 0

    with_store(work, Settings(near_writes=side == "proxy"), shares=side == "driver")


def test_when_a_reader_finds_no_memory_bytes_are_sent_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0

    async def work(store: FabricStore, proxy: Proxy) -> None:
        nonlocal now
        store._near_writes._monotonic_s = lambda: now
        await introduced(store, proxy)
        proxy.fails = MemoryGone("chunk-2 may not look there")
        await store.put("large", DATA)
        assert proxy.kinds[0] is SharedBytes
        assert proxy.kinds[1] is not SharedBytes
        assert await content(store, "large") == DATA
        proxy.fails = None
        await store.put("large", DATA)
        assert proxy.kinds.count(SharedBytes) == 1
        now += REST_S
        await store.put("large", DATA)
        assert proxy.kinds[-1] is SharedBytes

    with caplog.at_level(logging.WARNING):
        with_store(work)
    assert ["chunk-2 may not look there" in record.getMessage() for record in caplog.records] == [True]


def test_other_errors_are_the_callers() -> None:
    async def work(store: FabricStore, proxy: Proxy) -> None:
        await introduced(store, proxy)
        from fabric.errors import BadRequest

        proxy.fails = BadRequest("no")
        with pytest.raises(BadRequest):
            await store.store_fragment([memoryview(DATA)])
        assert proxy.kinds == [SharedBytes]

    with_store(work)


@pytest.mark.parametrize("step", ["memfd_create", "pwritev"])
def test_without_memory_bytes_are_sent(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(store: FabricStore, proxy: Proxy) -> None:
        await introduced(store, proxy)
        store._near_writes.close()  # no block is there to be used again

        def fail(*_: object) -> int:
            raise OSError(errno.ENOSPC, "no memory left")

        monkeypatch.setattr(module.os, step, fail)
        await store.put("large", DATA)
        assert await content(store, "large") == DATA
        assert SharedBytes not in proxy.kinds

    with_store(work)


# --- blocks -------------------------------------------------------------------------------------------


def with_blocks(work: Callable[[NearWrites], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        blocks = NearWrites(**options)
        try:
            await work(blocks)
        finally:
            blocks.close()

    before = memory_files()
    asyncio.run(run())
    assert memory_files() == before


def test_a_block_is_used_again_when_its_request_has_ended() -> None:
    async def work(blocks: NearWrites) -> None:
        files = set()
        for number in range(10):
            data = DATA[number : number + 100_000]
            with blocks.holding([memoryview(data)]) as payload:
                assert payload is not None
                files.add(payload.file)
                assert payload.joined() == data
        assert len(files) == 1
        with (
            blocks.holding([memoryview(DATA)]) as one,
            blocks.holding([memoryview(DATA[:7]), memoryview(DATA[:5])]) as other,
        ):
            assert one is not None
            assert other is not None
            assert one.file != other.file
            assert other.joined() == DATA[:7] + DATA[:5]

    with_blocks(work)


def test_many_tiny_parts_are_one_payload() -> None:
    async def work(blocks: NearWrites) -> None:
        view = memoryview(DATA)[:5000]
        parts = [view[position : position + 1] for position in range(5000)]
        with blocks.holding(parts) as payload:
            assert payload is not None
            assert xxhash.xxh3_64_intdigest(payload.joined()) == xxhash.xxh3_64_intdigest(view)

    with_blocks(work)


def test_their_number_has_a_limit() -> None:
    async def work(blocks: NearWrites) -> None:
        with ExitStack() as stack:
            payloads = [
                stack.enter_context(blocks.holding([memoryview(DATA)[:9]])) for _ in range(BLOCKS_MAX + 1)
            ]
            assert payloads[-1] is None
            assert None not in payloads[:-1]
        with blocks.holding([memoryview(DATA)[:9]]) as payload:
            assert payload is not None

    with_blocks(work)


def test_blocks_that_nobody_needs_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    before = memory_files()

    async def work(blocks: NearWrites) -> None:
        with blocks.holding([memoryview(DATA)]), blocks.holding([memoryview(DATA)]):
            assert memory_files() == before + 2
            await asyncio.sleep(0.1)
            assert memory_files() == before + 2  # in use
        async with asyncio.timeout(10):
            while memory_files() > before:
                await asyncio.sleep(0.01)

    with_blocks(work)
    assert IDLE_S > 1


def test_the_memory_of_a_request_under_way_is_given_back_at_the_end() -> None:
    before = memory_files()

    async def run() -> None:
        blocks = NearWrites()
        with blocks.holding([memoryview(DATA)]):
            blocks.close()
            assert memory_files() == before

    asyncio.run(run())
    assert memory_files() == before
