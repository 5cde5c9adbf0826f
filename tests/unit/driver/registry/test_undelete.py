"""The way back from deletions: tags, manifests, repositories."""

from __future__ import annotations

import pytest

from fabric.driver.registry.collection import Policy
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import Digest, parse_digest
from tests.unit.driver.registry.harness import OCI_INDEX, asynchronous, registry, sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Books, Clock, Process, index_of, manifest_of, run

POLICY = Policy(grace_s=10, undelete_s=1000, untagged_after_s=-1, upload_idle_s=1000)


@pytest.fixture(params=["new books", "old books"])
def shop(request: pytest.FixtureRequest) -> Process:
    """With and without the books being complete: deletions find a manifest's tags in either case."""
    process = Process(MemoryStore(), Clock(), POLICY)
    if request.param == "new books":
        run(process.collect())
    return process


def named(shop: Process, tag: str) -> Digest | None:
    try:
        return run(shop.manifests.find("app", tag)).digest  # type: ignore[no-any-return]
    except RegistryError:
        return None


def push(shop: Process, tag: str, layer: bytes) -> Digest:
    shop.clock.advance(1)
    return run(shop.push_image("app", tag, layer))  # type: ignore[no-any-return]


def sound(shop: Process) -> None:
    assert Books(shop.store).damage() == []


def test_a_history_tells_who_did_what_in_order(shop: Process) -> None:
    first = push(shop, "v1", b"one")
    second = push(shop, "v1", b"two")
    run(shop.manifests.delete_tag("app", "v1", "somebody"))

    events = run(shop.history.of("app", "v1"))

    assert [(event.what, event.digest, event.who) for event in events] == [
        ("pushed", first, "tester"),
        ("pushed", second, "tester"),
        ("deleted", None, "somebody"),
    ]
    assert [event.named for event in events] == [first, second, None]
    assert events[1].at_ms - events[0].at_ms == 1000


def test_an_overwritten_tag_goes_back(shop: Process) -> None:
    first = push(shop, "v1", b"one")
    push(shop, "v1", b"two")

    run(shop.undelete.tag("app", "v1", None, "operator"))

    assert named(shop, "v1") == first
    last = run(shop.history.of("app", "v1"))[-1]
    assert (last.what, last.digest, last.who) == ("restored", first, "operator")


def test_a_tag_goes_back_to_a_time(shop: Process) -> None:
    digests = [push(shop, "v1", layer) for layer in (b"one", b"two", b"three")]
    at_ms = shop.clock.now_ms - 1500

    run(shop.undelete.tag("app", "v1", at_ms, "operator"))
    assert named(shop, "v1") == digests[0]

    with pytest.raises(RegistryError):
        run(shop.undelete.tag("app", "v1", at_ms - 10_000, "operator"))


def test_a_deleted_manifest_comes_back_with_the_tags_it_had(shop: Process) -> None:
    digest = push(shop, "v1", b"one")
    push(shop, "latest", b"one")
    push(shop, "moved", b"one")
    push(shop, "gone", b"one")
    run(shop.manifests.delete_tag("app", "gone"))
    run(shop.manifests.delete("app", digest, "somebody"))
    moved = push(shop, "moved", b"other")
    assert (named(shop, "v1"), named(shop, "latest")) == (None, None)

    restored = run(shop.undelete.manifest("app", digest, "operator"))

    assert [each.tag for each in restored] == ["", "latest", "v1"]
    assert (named(shop, "v1"), named(shop, "latest")) == (digest, digest)
    assert (named(shop, "moved"), named(shop, "gone")) == (moved, None)
    sound(shop)


def test_a_deleted_image_survives_passes_and_comes_back_whole(shop: Process) -> None:
    digest = push(shop, "v1", b"one")
    run(shop.manifests.delete("app", digest))
    run(shop.blobs.delete("app", parse_digest(sha256(b"one")), "somebody"))
    run(shop.collect(passes=9, advance_s=100))

    run(shop.undelete.manifest("app", digest, "operator"))
    run(shop.collect(passes=20, advance_s=1000))

    assert named(shop, "v1") == digest
    assert run(shop.blobs.size("app", parse_digest(sha256(b"one")))) == 3
    sound(shop)


def test_an_index_brings_its_manifests_back(shop: Process) -> None:
    children = [manifest_of(layer) for layer in (b"amd64", b"arm64")]
    for layer in (b"amd64", b"arm64"):
        push(shop, "", layer)
    index = run(shop.push("app", "multi", index_of(*children), OCI_INDEX))
    for digest in (index, *(parse_digest(sha256(child)) for child in children)):
        run(shop.manifests.delete("app", digest))

    run(shop.undelete.tag("app", "multi", None, "operator"))

    assert named(shop, "multi") == index
    assert [letters for key, letters in Books(shop.store).links.items() if "M" in letters] == []
    sound(shop)


def test_a_whole_repository_comes_back(shop: Process) -> None:
    first, second = push(shop, "v1", b"one"), push(shop, "v2", b"two")
    push(shop, "", b"untagged")
    other = run(shop.push_image("other", "v1", b"one"))
    for data in (b"one", b"two", b"untagged"):
        run(shop.manifests.delete("app", parse_digest(sha256(manifest_of(data)))))
    run(shop.manifests.delete("other", other))

    restored = run(shop.undelete.repository("app", None, "operator"))

    assert (named(shop, "v1"), named(shop, "v2")) == (first, second)
    assert {each.digest for each in restored if not each.tag} == {
        first, second, parse_digest(sha256(manifest_of(b"untagged")))
    }  # fmt: skip
    assert {each.repository for each in restored} == {"app"}
    sound(shop)


def test_a_repository_goes_back_to_a_time(shop: Process) -> None:
    first = push(shop, "v1", b"one")
    early = push(shop, "v2", b"two")
    run(shop.manifests.delete_tag("app", "v2"))
    shop.clock.advance(1)
    at_ms = shop.clock.now_ms
    push(shop, "v1", b"three")
    run(shop.manifests.delete("app", first))
    new = push(shop, "v3", b"four")

    run(shop.undelete.repository("app", at_ms, "operator"))

    assert named(shop, "v1") == first
    assert named(shop, "v2") is None, "it was deleted before"
    assert named(shop, "v3") == new, "what was pushed since stays"
    assert named(shop, str(early)) is None


def test_what_is_purged_does_not_come_back(shop: Process) -> None:
    digest = push(shop, "v1", b"one")
    run(shop.manifests.delete("app", digest))
    run(shop.collect(passes=3, advance_s=500))

    with pytest.raises(RegistryError, match="manifest unknown"):
        run(shop.undelete.manifest("app", digest, "operator"))
    assert run(shop.undelete.repository("app", None, "operator")) == []


def test_the_trash_lists_what_can_be_restored(shop: Process) -> None:
    digest = push(shop, "v1", b"one")
    other = push(shop, "v2", b"two")
    run(shop.manifests.delete("app", digest, "somebody"))
    shop.clock.advance(1)
    run(shop.manifests.delete("app", other, "somebody"))
    run(shop.push_image("app", "v2", b"two"))

    async def trash(name: str = "") -> list[tuple[str, str, Digest, int, str]]:
        return [
            (each.repository, each.kind, each.digest, each.at_ms, each.who)
            async for each in shop.undelete.trash(name)
        ]

    assert run(trash()) == [("app", "manifest", digest, shop.clock.now_ms - 1000, "somebody")]
    assert run(trash("other")) == []


def test_pushing_again_takes_it_out_of_the_trash(shop: Process) -> None:
    digest = push(shop, "v1", b"one")
    run(shop.manifests.delete("app", digest))
    push(shop, "v1", b"one")
    run(shop.collect(passes=10, advance_s=1000))

    assert named(shop, "v1") == digest
    sound(shop)


def test_the_restored_tag_of_a_manifest_that_is_deleted_meanwhile_is_refused(shop: Process) -> None:
    digest = push(shop, "v1", b"one")
    commit = shop.store.commit

    async def delete_first(operations):  # type: ignore[no-untyped-def]
        shop.store.commit = commit  # type: ignore[method-assign]
        await shop.manifests.delete("app", digest)
        return await commit(operations)

    shop.store.commit = delete_first  # type: ignore[method-assign]
    with pytest.raises(RegistryError, match="manifest unknown"):
        run(shop.manifests.tag("app", digest, "v2", "operator"))
    sound(shop)


@asynchronous
async def test_over_http_an_anonymous_client_is_called_so() -> None:
    async with registry() as client:
        await client.push_image("layer", "v1")
        assert (await client.call("DELETE", "/v2/app/manifests/v1")).status == 202
        (path, *_) = client.store.paths("repositories/app/_history/tags/v1/")
        attributes = client.store.entries[path].attributes
        assert attributes is not None
        assert attributes["who"] == "anonymous"


@asynchronous
async def test_a_blob_in_doubt_is_to_be_uploaded_again_and_can_still_be_read() -> None:
    async with registry() as client:
        digest = await client.push_blob(b"layer")
        path = f"repositories/app/_blobs/{digest.replace(':', '/')}"
        entry = client.store.entries[path]
        attributes = {**(entry.attributes or {}), "leaving": "1"}
        client.store.entries[path] = type(entry)(
            entry.fragments, entry.generation, entry.object_id, entry.digest, attributes
        )

        assert (await client.call("HEAD", f"/v2/app/blobs/{digest}")).status == 404
        assert (await client.call("GET", f"/v2/app/blobs/{digest}")).body == b"layer"
        await client.push_blob(b"layer")
        assert (await client.call("HEAD", f"/v2/app/blobs/{digest}")).status == 200
