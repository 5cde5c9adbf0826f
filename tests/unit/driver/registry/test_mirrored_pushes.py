"""Manifests that come before what they reference, beside garbage collection."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from fabric.driver.registry.bookkeeping import use_path
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.manifest_store import CHECKED_MS
from fabric.driver.registry.names import Digest, blob_link_path, manifest_link_path, parse_digest, tag_path
from tests.unit.driver.registry.harness import OCI_INDEX, OCI_MANIFEST, sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import (
    AT_ONCE,
    CONFIG_TYPE,
    LAYER_TYPE,
    Books,
    Clock,
    Process,
    config_of,
    described,
    index_of,
    interleave,
    manifest_of,
    run,
)

MANIFEST = manifest_of(b"one", b"two")


def process(store: MemoryStore | None = None) -> Process:
    return Process(store or MemoryStore(), Clock())


async def mirror(
    shop: Process, data: bytes, tags: list[str], media_type: str = OCI_MANIFEST, name: str = "hub/app"
) -> Digest:
    digest = parse_digest(sha256(data))
    await shop.manifests.push(name, digest, tags, data, media_type, "mirror", mirrored=True)
    return digest


def is_linked(shop: Process, data: bytes) -> bool:
    return blob_link_path("hub/app", parse_digest(sha256(data))) in shop.store.entries


def test_a_blob_that_comes_later_is_used_already() -> None:
    shop = process()
    digest = run(mirror(shop, MANIFEST, ["v1"]))
    assert run(shop.manifests.find("hub/app", "v1")).digest == digest

    run(shop.collect(passes=3))
    run(shop.upload("hub/app", b"one"))
    run(shop.collect(passes=6))

    assert is_linked(shop, b"one")
    assert not is_linked(shop, b"two")
    assert not shop.store.paths("loose/")


def test_what_is_here_already_is_held() -> None:
    shop = process()
    run(shop.upload("hub/app", b"one"))
    run(mirror(shop, MANIFEST, ["v1"]))

    run(shop.collect(passes=6))

    assert is_linked(shop, b"one")


def test_everything_goes_with_the_manifest() -> None:
    shop = process()
    digest = run(mirror(shop, MANIFEST, ["v1"]))
    run(shop.upload("hub/app", b"one"))

    run(shop.manifests.delete("hub/app", digest))
    run(shop.collect(passes=8))

    books = Books(shop.store)
    assert (books.bytes, books.waste(), books.damage()) == (set(), [], [])


def test_children_of_an_index_come_later_too() -> None:
    shop = process()
    run(mirror(shop, index_of(MANIFEST, manifest_of(b"never asked for")), ["v1"], OCI_INDEX))
    run(shop.collect(passes=3))
    child = run(mirror(shop, MANIFEST, []))
    run(shop.upload("hub/app", b"one"))

    run(shop.collect(passes=6))

    assert manifest_link_path("hub/app", child) in shop.store.entries
    assert is_linked(shop, b"one")


def test_a_manifest_that_was_never_whole_can_be_restored() -> None:
    shop = process()
    digest = run(mirror(shop, MANIFEST, ["v1"]))
    run(shop.upload("hub/app", b"one"))
    run(shop.manifests.delete("hub/app", digest))

    run(shop.undelete.manifest("hub/app", digest, "operator"))

    assert run(shop.manifests.find("hub/app", "v1")).digest == digest


def test_a_manifest_of_more_references_than_one_commit_takes() -> None:
    layers = [f"layer {number}".encode() for number in range(300)]
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    document["config"] = described(config_of(layers), CONFIG_TYPE)
    document["layers"] = [described(data, LAYER_TYPE) for data in layers]
    data = json.dumps(document).encode()
    shop = process()
    run(shop.upload("hub/app", layers[7]))

    digest = run(mirror(shop, data, ["v1"]))

    for layer in layers:
        assert use_path("hub/app", parse_digest(sha256(layer)), digest) in shop.store.entries
    run(shop.collect(passes=6))
    assert is_linked(shop, layers[7])


def test_only_a_mirrored_push_may_come_first() -> None:
    shop = process()
    with pytest.raises(RegistryError) as caught:
        run(shop.push("app", "v1", MANIFEST))
    assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"


def test_a_tag_remembers_when_the_upstream_was_asked() -> None:
    shop = process()
    run(mirror(shop, MANIFEST, ["v1"]))
    attributes = shop.store.entries[tag_path("hub/app", "v1")].attributes
    assert attributes is not None and attributes[CHECKED_MS] == str(shop.clock.now_ms)


def test_a_blob_that_is_linked_while_its_manifest_is_pushed_is_held() -> None:
    """A pass that saw the link and no use of it must fail: the push raises the link's generation."""
    shop = process()
    stage = shop.store.stage
    path = blob_link_path("hub/app", parse_digest(sha256(b"one")))
    seen: list[int] = []

    async def blob_comes_first(data: bytes) -> Any:
        if data == MANIFEST:
            await shop.upload("hub/app", b"one")
            seen.append(shop.store.entries[path].generation)
        return await stage(data)

    shop.store.stage = blob_comes_first  # type: ignore[method-assign, assignment]
    run(mirror(shop, MANIFEST, ["v1"]))

    assert shop.store.entries[path].generation > seen[0]


@pytest.mark.parametrize("seed", range(60))
def test_a_pass_never_takes_a_blob_that_comes_beside_its_manifest(seed: int) -> None:
    shop = Process(MemoryStore(), Clock(), msgspec.structs.replace(AT_ONCE, upload_idle_s=100))
    rng = random.Random(seed)
    passes = [shop.garbage.run() for _ in range(3)]
    interleave([mirror(shop, MANIFEST, ["v1"]), shop.upload("hub/app", b"one"), *passes], rng)
    used = use_path("hub/app", parse_digest(sha256(b"one")), parse_digest(sha256(MANIFEST)))
    assert used in shop.store.entries
    was_linked = is_linked(shop, b"one")

    run(shop.collect(passes=6))

    assert is_linked(shop, b"one") == was_linked, "a use was there, and the link ended all the same"
