"""What a new quota finds is counted once: beside pushes, by several, through crashes."""

from __future__ import annotations

import random

import pytest

from fabric.driver.registry.quota import counting
from fabric.driver.registry.quota.book import declare, read_book
from fabric.driver.registry.quota.quotas import make_quotas
from tests.unit.driver.registry.accounts_world import TIB, Recount, set_quotas
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.test_indexing import old_store
from tests.unit.driver.registry.world import Clock, Crashed, FrailStore, Process, interleave, run


def full_store(clock: Clock) -> MemoryStore:
    """Images that share layers, one of them deleted, and loose blobs."""
    store = MemoryStore()
    process = Process(store, clock)
    for name in ("team/app", "team/tool", "elsewhere"):
        run(process.push_image(name, "v1", b"one" * 100, b"two" * 50))
        run(process.push_image(name, "v2", b"one" * 100, name.encode()))
        run(process.upload(name, b"loose"))
    digest = run(process.manifests.find("team/app", "v1")).digest
    run(process.manifests.delete("team/app", digest))
    return store


def is_counted(store: MemoryStore) -> bool:
    return not run(read_book(store)).uncounted


def test_it_counts_what_was_there_with_the_trash() -> None:
    clock = Clock()
    store = full_store(clock)
    run(set_quotas(Process(store, clock), ("team/**", TIB), ("elsewhere", TIB)))
    assert is_counted(store)
    recount = Recount(store)
    assert recount.wrong() == []
    assert recount.used("team/**") > recount.used("elsewhere") > 450


def test_it_goes_on_after_each_crash_and_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "TOGETHER", 2)
    clock = Clock()
    store, crashes = full_store(clock), 0
    run(declare(store, make_quotas([("team/**", TIB)]), clock.new_id))
    while not is_counted(store):
        crashes += 1
        try:
            run(Process(FrailStore(store, 2, after=crashes % 2 == 0), clock).counting.run())
        except Crashed:
            continue
    assert crashes > 5
    assert Recount(store).wrong() == []


def test_a_store_of_an_earlier_version_gets_its_books_first() -> None:
    clock = Clock()
    store = old_store(clock)
    run(set_quotas(Process(store, clock), ("app", TIB), ("app/**", TIB)))
    assert store.paths("owners/") != []
    assert Recount(store).wrong() == []
    assert Recount(store).used("app") > 0


@pytest.mark.parametrize("seed", range(20))
def test_beside_pushes_deletions_and_others_of_its_kind(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "TOGETHER", 3)
    clock, rng = Clock(), random.Random(seed)
    store = full_store(clock)
    one, other, third = (Process(store, clock) for _ in range(3))
    run(declare(one.accounts, make_quotas([("team/**", TIB)]), clock.new_id))

    async def others() -> None:
        await third.push_image("team/app", "v3", b"one" * 100, b"three")
        await third.push_image("team/third", "v1", b"two" * 50)
        await third.manifests.delete("team/tool", (await third.manifests.find("team/tool", "v2")).digest)
        await third.collect(passes=3)
        await third.push_image("team/tool", "v2", b"one" * 100)

    interleave([one.counting.run(), others(), other.counting.run()], rng)

    assert is_counted(store)
    assert Recount(store).wrong() == []


def test_a_quota_that_ends_while_it_is_counted_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "TOGETHER", 2)
    for seed in range(20):
        clock, rng = Clock(), random.Random(seed)
        store = full_store(clock)
        one, other = Process(store, clock), Process(store, clock)
        run(declare(one.accounts, make_quotas([("team/**", TIB)]), clock.new_id))

        async def end(other: Process = other) -> None:
            await declare(other.accounts, [], other.clock.new_id)
            await other.counting.run()

        interleave([one.counting.run(), end()], rng)
        run(other.counting.run())
        assert store.paths("accounts/") == []
