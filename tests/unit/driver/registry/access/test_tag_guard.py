"""Immutable tags at the commit: created once, then only what they are."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fabric.driver.registry.access.tag_guard import TagGuard, tag_of_path
from fabric.driver.registry.errors import RegistryError
from fabric.errors import NotFound, Precondition
from fabric.wire.messages import DeleteOperation, PutOperation
from tests.unit.driver.registry.harness import asynchronous
from tests.unit.driver.registry.memory_store import MemoryStore

TAG = "repositories/app/_tags/v1"
OTHER = "repositories/app/_tags/latest"


def guard(store: MemoryStore) -> TagGuard:
    return TagGuard(store, lambda name, tag: name == "app" and tag.startswith("v"))


def put(digest: str, path: str = TAG, **more: str) -> PutOperation:
    return PutOperation(path, [], digest, {"digest": digest, **more})


def test_which_paths_are_tags() -> None:
    assert tag_of_path("repositories/a/b/_tags/v1") == ("a/b", "v1")
    for path in (
        "names/app",
        "repositories/app/_blobs/sha256/ab",
        "blobs/_tags/v1",
        "x/repositories/a/_tags/b",
    ):
        assert tag_of_path(path) == ("", "")


@asynchronous
async def test_it_is_set_once_and_again_to_the_same() -> None:
    store = MemoryStore()
    await guard(store).commit([put("d1", kind="old")])
    await guard(store).commit([put("d1", kind="new")])
    assert (await store.stat(TAG)).attributes == {"digest": "d1", "kind": "old"}

    with pytest.raises(RegistryError) as refused:
        await guard(store).commit([put("d9", "names/x"), put("d2")])
    assert (refused.value.status, refused.value.code) == (409, "DENIED")
    assert (await store.stat(TAG)).digest == "d1"
    assert store.paths("names/") == []


@asynchronous
async def test_a_condition_of_its_own_stays() -> None:
    store = MemoryStore()
    await guard(store).commit([put("d1")])
    for generation in (0, 999):
        conditional = msgspec.structs.replace(put("d1"), if_generation=generation)
        with pytest.raises(Precondition):
            await guard(store).commit([conditional])
    with pytest.raises(Precondition):
        await guard(MemoryStore()).commit([msgspec.structs.replace(put("d1"), if_generation=7)])


@asynchronous
async def test_it_is_not_deleted_and_others_are() -> None:
    store = MemoryStore()
    await guard(store).commit([put("d1"), put("d1", OTHER)])
    for missing_ok in (False, True):
        with pytest.raises(RegistryError) as refused:
            await guard(store).commit([DeleteOperation(OTHER), DeleteOperation(TAG, missing_ok=missing_ok)])
        assert (refused.value.status, refused.value.code) == (405, "DENIED")
    await guard(store).commit([put("d2", OTHER)])
    await guard(store).commit([DeleteOperation(OTHER)])
    assert store.paths("repositories/") == [TAG]


@asynchronous
async def test_one_that_is_not_there_is_deleted_like_any_other() -> None:
    with pytest.raises(NotFound):
        await guard(MemoryStore()).commit([DeleteOperation(TAG)])
    await guard(MemoryStore()).commit([DeleteOperation(TAG, missing_ok=True)])


class Meeting(MemoryStore):
    """Two that look at a tag see it before either of them commits."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = asyncio.Barrier(2)

    async def stat(self, path: str):  # type: ignore[no-untyped-def]
        try:
            return await super().stat(path)
        finally:
            await self.barrier.wait()


@asynchronous
async def test_of_two_first_pushes_one_wins() -> None:
    store = Meeting()
    results = await asyncio.gather(
        guard(store).commit([put("d1")]), guard(store).commit([put("d2")]), return_exceptions=True
    )
    assert sum(isinstance(result, Precondition) for result in results) == 1
    winner = "d1" if isinstance(results[0], list) else "d2"
    assert store.entries[TAG].digest == winner


class Rival(MemoryStore):
    """Somebody sets the tag just after it was looked for in vain."""

    async def stat(self, path: str):  # type: ignore[no-untyped-def]
        try:
            return await super().stat(path)
        except NotFound:
            self.run([put("d1", path)])
            raise


@asynchronous
async def test_a_tag_that_appears_beside_its_deletion_stays() -> None:
    store = Rival()
    with pytest.raises(Precondition):
        await guard(store).commit([DeleteOperation(TAG, missing_ok=True)])
    assert store.entries[TAG].digest == "d1"
    store = Rival()
    with pytest.raises(NotFound):
        await guard(store).commit([DeleteOperation(TAG)])
    assert store.entries[TAG].digest == "d1"
