"""Garbage collection beside everything else, step by step, in many orders.

Pushes, mounts, deletions, restorations and passes run at once, each step of the store at a random moment;
some processes are killed at one of their commits.  Afterwards nothing that is referenced may be missing
and, once no time protects anything, nothing that is not referenced may be left.
"""

from __future__ import annotations

import os
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from fabric.driver.registry import purge, references
from fabric.driver.registry.collection import Policy
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import Digest, parse_digest
from tests.unit.driver.registry.harness import OCI_INDEX, sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import (
    AT_ONCE,
    Books,
    Clock,
    FrailStore,
    Process,
    config_of,
    index_of,
    interleave,
    manifest_of,
    run,
)

REPOSITORIES = ("app", "app/sub", "other")
TAGS = ("v1", "latest")
LAYERS = (b"base", b"tools", b"code", b"data")
SEEDS = range(int(os.environ.get("FABRIC_RACES", "12")))


class Actors:
    """Clients that do one thing each, again and again."""

    def __init__(self, seed: int, policy: Policy) -> None:
        self.rng = random.Random(seed)
        self.store = MemoryStore()
        self.clock = Clock()
        self.policy = policy
        self.pushed: list[tuple[str, Digest]] = []
        self.refused: list[str] = []
        """Pushes that were told that something is missing though they had just made sure of it."""

    def process(self) -> Process:
        """One that will live, or one that is killed at some commit."""
        store: Any = self.store
        if self.rng.random() < 0.3:
            store = FrailStore(store, self.rng.randint(1, 25), after=self.rng.random() < 0.5)
        return Process(store, self.clock, self.policy)

    def all(self) -> list[Coroutine[Any, Any, Any]]:
        makers = [
            self.pushes,
            self.pushes,
            self.pushes,
            self.deletions,
            self.passes,
            self.passes,
            self.restorations,
        ]
        return [make(self.process(), 5) for make in makers] + [self.time(60)]

    async def time(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.advance(self.rng.choice((0, 0.001, 1)))
            await self.store.list("nothing/")

    async def pushes(self, process: Process, count: int) -> None:
        for _ in range(count):
            name = self.rng.choice(REPOSITORIES)
            layers = self.rng.sample(LAYERS, self.rng.randint(1, 3))
            try:
                await self.push(process, name, layers)
            except RegistryError as error:
                # Without a grace time even an upload may be gone before its end.
                assert error.code in ("MANIFEST_BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN"), error

    async def push(self, process: Process, name: str, layers: list[bytes]) -> None:
        began_ms = self.clock.now_ms
        for data in (config_of(layers), *layers):
            await self.provide(process, name, data)
        manifest = manifest_of(*layers)
        is_in_index = self.rng.random() < 0.3
        tag = "" if is_in_index else self.rng.choice(TAGS)
        try:
            digest = await process.push(name, tag, manifest)
            if is_in_index:
                digest = await process.push(name, self.rng.choice(TAGS), index_of(manifest), OCI_INDEX)
        except RegistryError as error:
            # That somebody deleted the index's manifest meanwhile is not a pass's doing.
            is_blob = sha256(manifest) not in str(error.detail)
            if is_blob and self.clock.now_ms - began_ms < self.policy.grace_s * 1000:
                self.refused.append(f"{name}: {error} {error.detail}")
            raise
        self.pushed.append((name, digest))

    async def provide(self, process: Process, name: str, data: bytes) -> None:
        """As clients do: ask, mount, upload."""
        digest = parse_digest(sha256(data))
        try:
            await process.blobs.offer(name, digest)
            return
        except RegistryError:
            pass
        if self.rng.random() < 0.5 and await process.blobs.mount(name, digest, self.rng.choice(REPOSITORIES)):
            return
        await process.upload(name, data)

    async def deletions(self, process: Process, count: int) -> None:
        for _ in range(count):
            await self.store.list("nothing/")
            if not self.pushed:
                continue
            name, digest = self.rng.choice(self.pushed)
            try:
                if self.rng.random() < 0.6:
                    await process.manifests.delete(name, digest, "tester")
                else:
                    await process.manifests.delete_tag(name, self.rng.choice(TAGS), "tester")
            except RegistryError as error:
                assert error.code == "MANIFEST_UNKNOWN"

    async def restorations(self, process: Process, count: int) -> None:
        for _ in range(count):
            await self.store.list("nothing/")
            name = self.rng.choice(REPOSITORIES)
            try:
                if self.rng.random() < 0.5:
                    await process.undelete.tag(name, self.rng.choice(TAGS), None, "tester")
                else:
                    await process.undelete.repository(name, None, "tester")
            except RegistryError as error:
                assert error.code in ("MANIFEST_UNKNOWN", "MANIFEST_BLOB_UNKNOWN")

    async def passes(self, process: Process, count: int) -> None:
        for _ in range(count):
            report = await process.garbage.run()
            assert report.problems == []


def check(actors: Actors) -> None:
    assert Books(actors.store).damage() == []
    survivor = Process(actors.store, actors.clock, actors.policy)
    run(survivor.collect(passes=12, advance_s=1000))
    books = Books(actors.store)
    assert books.damage() == []
    assert books.waste() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_needed_goes_and_nothing_else_stays(seed: int) -> None:
    actors = Actors(seed, AT_ONCE)
    interleave(actors.all(), actors.rng)
    check(actors)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_with_manifests_that_do_not_fit_a_commit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "OPERATIONS_MAX", 20)
    monkeypatch.setattr(references, "BATCH_MAX", 1)
    monkeypatch.setattr(purge, "_EVENTS_PER_COMMIT", 2)
    actors = Actors(seed, AT_ONCE)
    interleave(actors.all(), actors.rng)
    check(actors)


@pytest.mark.parametrize("seed", SEEDS)
def test_within_the_grace_time_no_push_is_told_that_a_blob_is_missing(seed: int) -> None:
    actors = Actors(seed, Policy(grace_s=4, undelete_s=2, untagged_after_s=0, upload_idle_s=4))
    interleave(actors.all(), actors.rng)
    assert actors.refused == []
    check(actors)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_all_is_deleted_the_store_is_empty(seed: int) -> None:
    actors = Actors(seed, AT_ONCE)
    interleave(actors.all(), actors.rng)
    survivor = Process(actors.store, actors.clock, actors.policy)
    for name in REPOSITORIES:
        for path in actors.store.paths(f"repositories/{name}/_tags/"):
            run(survivor.manifests.delete_tag(name, path.rsplit("/", 1)[1], "tester"))
    run(survivor.collect(passes=24, advance_s=1000))
    assert actors.store.paths() == ["meta/registry-gc", "meta/registry-index"]
