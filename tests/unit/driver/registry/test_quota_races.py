"""Accounts beside everything, step by step, in many orders, by processes that are killed at any commit.

After every single commit each account must say just what its repositories own: that is looked at in the
store itself, not at the end.
"""

from __future__ import annotations

import os
import random
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from fabric.driver.registry.collection import Policy
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.quota.book import declare
from fabric.driver.registry.quota.quotas import make_quotas
from fabric.errors import FabricError
from fabric.wire.messages import AnyOperation, ObjectInfo
from tests.unit.driver.registry.accounts_world import TIB, Recount, set_quotas
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.test_garbage_races import REPOSITORIES, TAGS, Actors
from tests.unit.driver.registry.world import AT_ONCE, Books, Process, interleave, run

SEEDS = range(int(os.environ.get("FABRIC_RACES", "12")))

ACCOUNTS = (["**"], ["app", "app/**"])
"""All repositories in one account; or one in each of two, and ``other`` in none."""


class JudgedStore(MemoryStore):
    """Recounts all accounts that are counted after each commit that changes an ownership."""

    def __init__(self) -> None:
        super().__init__()
        self.judged = 0

    def run(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        results = super().run(operations)
        if any(getattr(each, "path", "").startswith("owners/") for each in operations):
            recount = Recount(self)
            if recount.book.accounts and not recount.book.uncounted:
                self.judged += 1
                assert recount.wrong() == []
        return results


class Tenants(Actors):
    """The clients of the races of garbage collection, with quotas."""

    def __init__(self, seed: int, policy: Policy, limit: int | str = TIB) -> None:
        super().__init__(seed, policy)
        self.store = JudgedStore()
        self.limit = limit
        self.accounts = ACCOUNTS[seed % 2]
        self.denied = 0

    @property
    def quotas(self) -> list[tuple[str, int | str]]:
        return [(repositories, self.limit) for repositories in self.accounts]

    async def pushes(self, process: Process, count: int) -> None:
        for _ in range(count):
            try:
                await super().pushes(process, 1)
            except RegistryError as error:
                assert error.code == "DENIED"
                self.denied += 1

    async def push(self, process: Process, name: str, layers: list[bytes]) -> None:
        try:
            await super().push(process, name, layers)
        except RegistryError as error:
            if error.code == "DENIED":
                self.denied += 1
                return
            raise

    async def operators(self, process: Process, count: int) -> None:
        """Quotas come and go, and are counted, perhaps by a process that dies over it."""
        for _ in range(count):
            chosen = [quota for quota in self.quotas if self.rng.random() < 0.7]
            try:
                await declare(process.accounts, make_quotas(chosen), process.clock.new_id)
                await process.counting.run()
            except FabricError as error:
                assert error.code == "UNAVAILABLE", error

    def with_operators(self) -> list[Coroutine[Any, Any, Any]]:
        return [*self.all(), self.operators(self.process(), 3), self.operators(self.process(), 3)]


def check(tenants: Tenants) -> None:
    store = tenants.store
    assert isinstance(store, JudgedStore)
    survivor = Process(store, tenants.clock, tenants.policy)
    run(survivor.counting.run())
    assert Recount(store).wrong() == []
    assert Books(store).damage() == []
    run(survivor.collect(passes=12, advance_s=1000))
    assert Recount(store).wrong() == []
    assert Books(store).waste() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_each_account_is_exact_after_each_commit(seed: int) -> None:
    tenants = Tenants(seed, AT_ONCE)
    run(set_quotas(Process(tenants.store, tenants.clock), *tenants.quotas))
    interleave(tenants.all(), tenants.rng)
    check(tenants)
    assert tenants.store.judged > 0  # type: ignore[attr-defined]
    assert tenants.denied == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_an_account_is_counted_beside_everything(seed: int) -> None:
    tenants = Tenants(seed, AT_ONCE)
    interleave(tenants.with_operators(), tenants.rng)
    check(tenants)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_account_ever_exceeds_its_limit(seed: int) -> None:
    tenants = Tenants(seed, AT_ONCE, limit=900)
    run(set_quotas(Process(tenants.store, tenants.clock), *tenants.quotas))
    highest = 0

    async def watch() -> None:
        nonlocal highest
        for _ in range(300):
            await tenants.store.list("nothing/")
            recount = Recount(tenants.store)
            highest = max(highest, *map(recount.used, tenants.accounts))

    interleave([*tenants.all(), watch()], tenants.rng)
    assert 0 < highest <= 900
    check(tenants)


def test_after_all_is_deleted_an_account_holds_nothing() -> None:
    tenants = Tenants(1, AT_ONCE)
    process = Process(tenants.store, tenants.clock)
    run(set_quotas(process, *tenants.quotas))
    interleave(tenants.all(), tenants.rng)
    for name in REPOSITORIES:
        for path in tenants.store.paths(f"repositories/{name}/_tags/"):
            assert path.rsplit("/", 1)[1] in TAGS
            run(process.manifests.delete_tag(name, path.rsplit("/", 1)[1], "tester"))
    run(process.collect(passes=24, advance_s=1000))
    assert [Recount(tenants.store).used(name) for name in tenants.accounts] == [0, 0]
    assert [path for path in tenants.store.paths("accounts/") if not path.endswith("/total")] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_rivals_for_the_last_bytes_get_them_once(seed: int) -> None:
    """Eight processes push three blobs of 100 bytes, each twice or more, where there is room for two."""
    rng = random.Random(seed)
    tenants = Tenants(seed, AT_ONCE)
    first = Process(tenants.store, tenants.clock)
    run(set_quotas(first, ("app", 250)))
    outcomes: list[tuple[bytes, bool]] = []

    async def client(data: bytes) -> None:
        try:
            await Process(tenants.store, tenants.clock).upload("app", data)
            outcomes.append((data, True))
        except RegistryError as error:
            assert error.code == "DENIED"
            outcomes.append((data, False))

    blobs = [bytes([letter]) * 100 for letter in b"abcabcab"]
    interleave([client(data) for data in blobs], rng)

    taken = {data for data, is_taken in outcomes if is_taken}
    assert len(taken) == 2
    assert Recount(tenants.store).used("app") == 200
    assert all(is_taken for data, is_taken in outcomes if data in taken), "what is held costs nothing"
