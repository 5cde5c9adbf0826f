"""A store of an earlier version gets its books, beside pushes, through crashes."""

from __future__ import annotations

import random

import pytest

from fabric.driver.registry import indexing
from fabric.driver.registry.bookkeeping import Stamper
from fabric.driver.registry.indexing import Indexing, is_indexed
from fabric.driver.registry.names import blob_link_path, parse_digest
from tests.unit.driver.registry.harness import OCI_INDEX, sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import (
    AT_ONCE,
    MANIFEST_BYTES_MAX,
    Books,
    Clock,
    Crashed,
    FrailStore,
    Process,
    index_of,
    interleave,
    manifest_of,
    pause,
    run,
)

BOOKS = ("owners/", "garbage/", "loose/", "untagged/", "retired/", "meta/")
PARTS = ("/_uses/", "/_tagged/", "/_history/")


def old_store(clock: Clock) -> MemoryStore:
    """As a version without books left it: images that share layers, an index, a loose blob, lost bytes."""
    process = Process(MemoryStore(), clock)
    for name in ("app", "app/sub"):
        run(process.push_image(name, "v1", b"one", b"two"))
        run(process.push_image(name, "v2", b"one"))
    run(process.push("app", "multi", index_of(manifest_of(b"one")), OCI_INDEX))
    run(process.push_image("app", "", b"untagged"))
    run(process.upload("app", b"loose"))
    run(process.upload("app", b"unlinked"))
    store = process.store
    for path in store.paths():
        if path.startswith(BOOKS) or any(part in path for part in PARTS):
            del store.entries[path]
    del store.entries[blob_link_path("app", parse_digest(sha256(b"unlinked")))]
    return store  # type: ignore[no-any-return]


def books_of(store: MemoryStore) -> list[str]:
    """The paths that matter, without what is made of times and chance."""
    paths = [path for path in store.paths() if not path.startswith(("retired/", "meta/"))]
    return [path.rsplit("-", 1)[0] if any(part in path for part in PARTS[1:]) else path for path in paths]


def index(store: object, clock: Clock) -> Indexing:
    return Indexing(store, Stamper(clock.wall_ms, clock.new_id), MANIFEST_BYTES_MAX, pause)  # type: ignore[arg-type]


def test_the_books_of_an_old_store_let_passes_free_only_what_is_garbage() -> None:
    clock = Clock()
    store = old_store(clock)
    process = Process(store, clock, AT_ONCE)
    tags = store.paths("repositories/app/_tags/")
    before = Books(store).bytes

    run(process.collect(passes=8))

    books = Books(store)
    assert books.damage() == []
    assert books.waste() == []
    assert store.paths("repositories/app/_tags/") == tags
    assert len(before) - len(books.bytes) == 2 + 3, "a loose blob, bytes without a link, an untagged image"


def test_a_tag_of_an_old_store_can_be_restored() -> None:
    clock = Clock()
    store = old_store(clock)
    process = Process(store, clock, AT_ONCE)
    old = run(process.manifests.find("app", "v1")).digest
    run(index(store, clock).run())
    run(process.push_image("app", "v1", b"new"))

    run(process.undelete.tag("app", "v1", None, "operator"))

    assert run(process.manifests.find("app", "v1")).digest == old


def test_it_goes_on_where_a_crash_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_PAGE", 3)
    clock = Clock()
    expected = old_store(clock)
    run(index(expected, clock).run())
    store, crashes = old_store(clock), 0

    while not run(is_indexed(store)):
        crashes += 1
        frail = FrailStore(store, 3, after=crashes % 2 == 0)
        try:
            run(index(frail, clock).run())
        except Crashed:
            continue

    assert crashes > 5
    assert books_of(store) == books_of(expected)


@pytest.mark.parametrize("seed", range(20))
def test_beside_pushes_deletions_and_another_of_its_kind(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_PAGE", 3)
    clock, rng = Clock(), random.Random(seed)
    store = old_store(clock)
    process = Process(store, clock, AT_ONCE)

    async def others() -> None:
        await process.push_image("app", "v1", b"two")
        await process.manifests.delete("app", (await process.manifests.find("app", "v2")).digest)
        await process.push_image("app/sub", "v2", b"two", b"three")
        await process.manifests.delete_tag("app/sub", "v1")
        await process.push_image("app", "v2", b"one")

    interleave([index(store, clock).run(), others(), index(store, clock).run()], rng)
    run(process.collect(passes=10))

    books = Books(store)
    assert books.damage() == []
    assert books.waste() == []
