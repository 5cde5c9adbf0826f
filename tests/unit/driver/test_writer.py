import asyncio
import random

import pytest

from fabric.driver import writer as writer_module
from fabric.driver.splitter import Splitter
from fabric.driver.writer import ATTACH_EVERY, Writer
from fabric.errors import NoWritableGroup, Precondition, Unavailable
from fabric.settings import FRAGMENT_BYTES_MAX, FRAGMENTS_PER_PAGE_MAX
from fabric.wire.messages import AppendOperation, FragmentRef
from tests.unit.driver.fake_client import Gate, noise_of, settle

SIZE = 4
"""Bytes of a fragment here."""


class Catalog:
    """An object that grows by appends, and a store that takes fragments; both may be gated."""

    def __init__(self, *, size: int = 0, window: int = 3) -> None:
        self.stored: dict[int, bytes] = {}
        self.attached: list[int] = []
        self.start = size
        self.size = size
        self.commits: list[AppendOperation] = []
        self.stores_under_way = 0
        self.most_stores_under_way = 0
        self.store_gate: Gate | None = None
        self.commit_gate: Gate | None = None
        self.refuse: dict[bytes, Exception] = {}
        self.writer = Writer(self.store, self.commit, "object", size, window * FRAGMENT_BYTES_MAX)
        self.writer._splitter = Splitter(SIZE)

    async def store(self, parts) -> FragmentRef:
        data = b"".join(parts)
        self.stores_under_way += 1
        self.most_stores_under_way = max(self.most_stores_under_way, self.stores_under_way)
        try:
            if self.store_gate is not None:
                await self.store_gate(data)
            if data in self.refuse:
                raise self.refuse[data]
        finally:
            self.stores_under_way -= 1
        fid = len(self.stored) + 1
        self.stored[fid] = data
        return FragmentRef(1, fid, len(data), 0)

    async def commit(self, operations):
        (operation,) = operations
        if self.commit_gate is not None:
            await self.commit_gate(operation)
        assert len(operation.fragments) <= FRAGMENTS_PER_PAGE_MAX
        if operation.expected_size != self.size:
            raise Precondition(f"object: {self.size} bytes, not {operation.expected_size}")
        self.commits.append(operation)
        self.attached += [fragment.fid for fragment in operation.fragments]
        self.size += sum(fragment.length for fragment in operation.fragments)
        return [None]

    @property
    def content(self) -> bytes:
        return b"".join(self.stored[fid] for fid in self.attached)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 5))


def numbered(count: int) -> bytes:
    """``count`` fragments, each with other bytes."""
    return b"".join(b"%04d" % number for number in range(count))


def test_what_was_written_is_attached_in_order_though_it_is_stored_out_of_order():
    async def scenario():
        catalog = Catalog(window=4)
        catalog.store_gate = Gate()
        writing = asyncio.create_task(catalog.writer.write(numbered(4) + b"end"))
        await settle()
        assert writing.done()
        flushing = asyncio.create_task(catalog.writer.flush())
        await settle()
        while catalog.store_gate.waiting:
            catalog.store_gate.open(-1, None)  # the youngest first
            await settle()
        assert await flushing == 19
        assert catalog.content == numbered(4) + b"end"
        assert catalog.attached != sorted(catalog.attached)

    run(scenario())


def test_any_pieces_give_the_same_object():
    async def scenario(seed: int):
        rng = random.Random(seed)
        data = rng.randbytes(rng.randrange(500))
        catalog = Catalog()
        position = 0
        while position < len(data):
            size = rng.randrange(30)
            await catalog.writer.write(data[position : position + size])
            position += size
            if rng.random() < 0.1:
                await catalog.writer.flush()
                assert catalog.content == data[:position]
        assert await catalog.writer.flush() == len(data) == catalog.writer.size
        assert catalog.content == data

    for seed in range(30):
        run(scenario(seed))


def test_appends_go_on_from_the_size_that_the_object_has():
    async def scenario():
        catalog = Catalog(size=1000)
        await catalog.writer.write(numbered(2))
        assert await catalog.writer.flush() == 1008
        await catalog.writer.write(b"more")
        assert await catalog.writer.flush() == 1012
        assert [commit.expected_size for commit in catalog.commits] == [1000, 1008]
        assert {commit.path for commit in catalog.commits} == {"object"}

    run(scenario())


def test_flush_with_nothing_written_asks_nothing():
    async def scenario():
        catalog = Catalog(size=7)
        assert await catalog.writer.flush() == 7
        assert catalog.commits == []

    run(scenario())


def test_write_waits_while_the_window_is_full():
    async def scenario():
        catalog = Catalog(window=3)
        catalog.store_gate = Gate()
        writing = asyncio.create_task(catalog.writer.write(numbered(5)))
        await settle()
        assert len(catalog.store_gate.waiting) == 3
        catalog.store_gate.open(1, None)
        await settle()
        assert len(catalog.store_gate.waiting) == 3
        assert not writing.done()
        while not writing.done():
            catalog.store_gate.open(0, None)
            await settle()
        assert catalog.most_stores_under_way == 3
        await catalog.writer.abort()

    run(scenario())


def test_fragments_are_attached_while_the_stream_goes_on():
    async def scenario():
        catalog = Catalog()
        await catalog.writer.write(numbered(3 * ATTACH_EVERY))
        await settle()
        assert len(catalog.attached) >= 2 * ATTACH_EVERY
        await catalog.writer.flush()
        assert catalog.content == numbered(3 * ATTACH_EVERY)

    run(scenario())


def test_a_stream_that_stalls_is_attached_after_a_while(monkeypatch):
    monkeypatch.setattr(writer_module, "ATTACH_AFTER_S", 0.0)

    async def scenario():
        catalog = Catalog()
        await catalog.writer.write(numbered(2))
        while catalog.content != numbered(2):
            await asyncio.sleep(0)
        await catalog.writer.write(b"more")
        await catalog.writer.flush()
        assert catalog.content == numbered(2) + b"more"

    run(scenario())


def test_what_came_before_a_failed_fragment_is_attached_and_its_error_raised():
    async def scenario():
        catalog = Catalog()
        catalog.refuse[b"0002"] = NoWritableGroup("chunk-2 is OFFLINE")
        await catalog.writer.write(numbered(3))
        with pytest.raises(NoWritableGroup):
            await catalog.writer.flush()
        assert catalog.content == numbered(2)
        for _ in range(2):
            with pytest.raises(NoWritableGroup):
                await catalog.writer.flush()
            with pytest.raises(NoWritableGroup):
                await catalog.writer.write(b"0004")
        assert catalog.content == numbered(2)
        await catalog.writer.abort()

    run(scenario())


def test_a_failure_ends_a_long_write_early():
    async def scenario():
        catalog = Catalog()
        catalog.refuse[b"0002"] = NoWritableGroup("chunk-2 is OFFLINE")
        with pytest.raises(NoWritableGroup):
            await catalog.writer.write(numbered(1000))
        assert len(catalog.stored) < 10
        assert catalog.content == numbered(2)

    run(scenario())


def test_of_many_failures_the_first_is_raised_and_none_makes_noise():
    async def scenario():
        catalog = Catalog()
        for number in range(1, 4):
            catalog.refuse[b"%04d" % number] = NoWritableGroup(f"number {number}")
        with pytest.raises(NoWritableGroup, match="number 1"):
            await catalog.writer.write(numbered(30))
            await catalog.writer.flush()

    assert noise_of(scenario) == []


def test_a_rival_append_is_precondition_and_nothing_of_ours_is_part_of_the_object():
    async def scenario():
        catalog = Catalog()
        await catalog.writer.write(numbered(1))
        await catalog.writer.flush()
        catalog.size += 1  # somebody else
        await catalog.writer.write(b"ours")
        with pytest.raises(Precondition):
            await catalog.writer.flush()
        assert catalog.content == numbered(1)

    run(scenario())


def test_after_an_attach_that_failed_flush_never_claims_success():
    async def scenario():
        catalog = Catalog()
        catalog.commit_gate = Gate()
        await catalog.writer.write(numbered(2))
        flushing = asyncio.create_task(catalog.writer.flush())
        await settle()
        catalog.commit_gate.open(0, Unavailable("the proxy is gone"))
        with pytest.raises(Unavailable):
            await flushing
        with pytest.raises(Unavailable):
            await catalog.writer.flush()

    run(scenario())


def test_a_flush_that_is_cancelled_while_attaching_loses_no_fragment_in_the_middle():
    async def scenario():
        catalog = Catalog()
        catalog.commit_gate = Gate()
        await catalog.writer.write(numbered(2))
        flushing = asyncio.create_task(catalog.writer.flush())
        await settle()
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
        again = asyncio.create_task(catalog.writer.flush())
        await settle()
        catalog.commit_gate.open(0, None)
        assert await again == 8
        await catalog.writer.write(b"0002")
        flushing = asyncio.create_task(catalog.writer.flush())
        await settle()
        catalog.commit_gate.open(0, None)
        assert await flushing == 12
        assert catalog.content == numbered(3)

    run(scenario())


def test_a_flush_that_is_cancelled_while_storing_does_not_cancel_the_store():
    async def scenario():
        catalog = Catalog()
        catalog.store_gate = Gate()
        await catalog.writer.write(numbered(2))
        flushing = asyncio.create_task(catalog.writer.flush())
        await settle()
        flushing.cancel()
        await settle()
        assert len(catalog.store_gate.waiting) == 2
        for _ in range(2):
            catalog.store_gate.open(0, None)
        assert await catalog.writer.flush() == 8
        assert catalog.content == numbered(2)

    run(scenario())


def test_after_a_cancelled_write_nothing_more_is_attached_behind_the_hole():
    async def scenario():
        catalog = Catalog(window=1)
        catalog.store_gate = Gate()
        writing = asyncio.create_task(catalog.writer.write(numbered(3)))
        await settle()
        writing.cancel()
        await settle()
        catalog.store_gate.open(0, None)
        await settle()
        with pytest.raises(Unavailable):
            await catalog.writer.write(b"0003")
        with pytest.raises(Unavailable):
            await catalog.writer.flush()
        assert numbered(3).startswith(catalog.content)
        await catalog.writer.abort()

    run(scenario())


def test_abort_ends_what_is_under_way_and_attaches_nothing():
    async def scenario():
        catalog = Catalog()
        catalog.store_gate = Gate()
        await catalog.writer.write(numbered(2))
        await settle()
        assert catalog.stores_under_way == 2
        for _ in range(2):
            await catalog.writer.abort()
            assert catalog.stores_under_way == 0
        assert catalog.commits == []
        with pytest.raises(Unavailable):
            await catalog.writer.write(b"more")

    run(scenario())


def test_abort_during_an_attach_ends_it():
    async def scenario():
        catalog = Catalog()
        catalog.commit_gate = Gate()
        await catalog.writer.write(numbered(2))
        flushing = asyncio.create_task(catalog.writer.flush())
        await settle()
        await catalog.writer.abort()
        with pytest.raises(Unavailable):
            await flushing
        assert catalog.commits == []

    run(scenario())


def test_abort_after_flush_is_harmless():
    async def scenario():
        catalog = Catalog()
        await catalog.writer.write(numbered(2))
        await catalog.writer.flush()
        await catalog.writer.abort()
        assert catalog.content == numbered(2)

    run(scenario())


def test_more_fragments_than_a_page_are_attached_page_by_page():
    async def scenario():
        catalog = Catalog(window=300)
        catalog.store_gate = Gate()
        await catalog.writer.write(numbered(200))
        flushing = asyncio.create_task(catalog.writer.flush())
        await settle()
        while catalog.store_gate.waiting:
            catalog.store_gate.open(0, None)
        assert await flushing == 800
        assert [len(commit.fragments) for commit in catalog.commits] == [128, 72]
        assert catalog.content == numbered(200)

    run(scenario())


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_cancelled_or_fails_the_object_is_a_prefix_of_what_was_written(seed):
    async def scenario():
        rng = random.Random(seed)
        catalog = Catalog(window=2)
        if rng.random() < 0.5:
            catalog.refuse[b"%04d" % rng.randrange(40)] = NoWritableGroup("sick")
        catalog.store_gate, catalog.commit_gate = Gate(), Gate()
        data, position = numbered(40), 0
        for _ in range(30):
            if rng.random() < 0.3:
                task = asyncio.create_task(catalog.writer.flush())
            else:
                size = rng.randrange(40)
                task = asyncio.create_task(catalog.writer.write(data[position : position + size]))
                position += size
            patience = rng.choice([2, 5, 1000])
            while not task.done():
                await settle()
                gates = [gate for gate in (catalog.store_gate, catalog.commit_gate) if gate.waiting]
                patience -= 1
                if patience == 0 or not gates:
                    task.cancel()
                elif gates:
                    gate = rng.choice(gates)
                    gate.open(rng.randrange(len(gate.waiting)), None)
            await asyncio.gather(task, return_exceptions=True)
            assert data.startswith(catalog.content)
        await catalog.writer.abort()
        assert data.startswith(catalog.content)
        assert catalog.stores_under_way == 0

    run(scenario())
