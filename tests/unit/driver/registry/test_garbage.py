"""Garbage collection, one rule at a time."""

from __future__ import annotations

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
    Crashed,
    FrailStore,
    Process,
    config_of,
    index_of,
    manifest_of,
    pieces,
    run,
)

PATIENT = Policy(grace_s=100, undelete_s=1000, untagged_after_s=-1, upload_idle_s=50)


def process(policy: Policy = AT_ONCE) -> Process:
    return Process(MemoryStore(), Clock(), policy)


def bytes_of(shop: Process) -> set[str]:
    return Books(shop.store).bytes


def is_unknown(shop: Process, name: str, digest: Digest) -> bool:
    try:
        run(shop.blobs.offer(name, digest))
    except RegistryError as error:
        assert error.code == "BLOB_UNKNOWN"
        return True
    return False


def sound(shop: Process) -> None:
    assert Books(shop.store).damage() == []


def clean(shop: Process) -> None:
    sound(shop)
    assert Books(shop.store).waste() == []


def test_what_is_tagged_stays_for_ever() -> None:
    shop = process()
    run(shop.push_image("app", "v1", b"one", b"two"))
    before = bytes_of(shop)

    run(shop.collect(passes=6))

    assert bytes_of(shop) == before
    assert len(before) == 4
    clean(shop)


def test_a_blob_without_a_manifest_goes_after_twice_the_grace_time() -> None:
    shop = process(PATIENT)
    digest = run(shop.upload("app", b"layer"))

    run(shop.collect(advance_s=99))
    assert not is_unknown(shop, "app", digest)

    run(shop.collect(advance_s=2))
    assert is_unknown(shop, "app", digest), "a client must not rely on it any more"
    run(shop.collect(advance_s=99))
    assert bytes_of(shop) == {str(digest)}, "one that was told before may still push its manifest"

    report = run(shop.collect(advance_s=2))
    assert (report.unlinked_blobs, report.freed, report.freed_bytes) == (1, 1, 5)
    assert shop.store.paths() == ["meta/registry-gc", "meta/registry-index"]


def test_a_manifest_that_comes_at_the_last_moment_keeps_its_blobs() -> None:
    shop = process(PATIENT)
    layers = (b"one", b"two")
    for data in (config_of(layers), *layers):
        run(shop.upload("app", data))
    run(shop.collect(advance_s=101))

    run(shop.push("app", "v1", manifest_of(*layers)))
    run(shop.collect(passes=5, advance_s=500))

    assert not is_unknown(shop, "app", parse_digest(sha256(b"one")))
    clean(shop)


def test_uploading_again_what_is_in_doubt_starts_the_time_anew() -> None:
    shop = process(PATIENT)
    digest = run(shop.upload("app", b"layer"))
    run(shop.collect(advance_s=101))
    run(shop.upload("app", b"layer"))

    run(shop.collect(advance_s=99))

    assert not is_unknown(shop, "app", digest)


def test_bytes_stay_while_another_repository_links_them() -> None:
    shop = process(PATIENT)
    run(shop.push_image("kept", "v1", b"shared"))
    digest = parse_digest(sha256(b"shared"))
    assert run(shop.blobs.mount("other", digest, "kept"))

    run(shop.collect(passes=3, advance_s=101))

    assert is_unknown(shop, "other", digest)
    assert not is_unknown(shop, "kept", digest)
    clean_but_history(shop)


def clean_but_history(shop: Process) -> None:
    """Nothing is wasted but what tells the history of tags."""
    sound(shop)
    assert [path for path in Books(shop.store).waste() if not path.startswith("retired/")] == []


def test_a_deleted_image_goes_with_its_layers_and_leaves_shared_ones() -> None:
    shop = process()
    run(shop.push_image("app", "v1", b"shared", b"first"))
    digest = run(shop.push_image("app", "v2", b"shared", b"second"))
    run(shop.manifests.delete("app", digest))

    run(shop.collect(passes=4))

    assert not is_unknown(shop, "app", parse_digest(sha256(b"shared")))
    assert is_unknown(shop, "app", parse_digest(sha256(b"second")))
    assert sha256(b"second") not in bytes_of(shop)
    assert len(bytes_of(shop)) == 4
    clean(shop)


def test_a_deleted_image_keeps_its_layers_while_it_can_be_restored() -> None:
    shop = process(PATIENT)
    digest = run(shop.push_image("app", "v1", b"layer"))
    run(shop.manifests.delete("app", digest))

    run(shop.collect(passes=9, advance_s=100))
    assert len(bytes_of(shop)) == 3

    run(shop.collect(passes=5, advance_s=101))
    assert shop.store.paths() == ["meta/registry-gc", "meta/registry-index"]


def test_a_deleted_blob_that_a_manifest_needs_stays_restorable_until_the_manifest_goes() -> None:
    shop = process()
    digest = run(shop.push_image("app", "v1", b"layer"))
    run(shop.blobs.delete("app", parse_digest(sha256(b"layer")), "tester"))

    run(shop.collect(passes=4))
    assert sha256(b"layer") in bytes_of(shop)

    run(shop.manifests.delete("app", digest))
    run(shop.collect(passes=5))
    assert bytes_of(shop) == set()
    clean(shop)


def test_an_overwritten_tag_leaves_an_untagged_manifest_that_goes_by_policy() -> None:
    shop = process()
    old = run(shop.push_image("app", "latest", b"old"))
    run(shop.push_image("app", "latest", b"new"))

    report = run(shop.collect(passes=2))

    assert report.trashed_manifests == 1
    with pytest.raises(RegistryError):
        run(shop.manifests.find("app", old))
    run(shop.collect(passes=4))
    assert sha256(b"old") not in bytes_of(shop)
    clean(shop)


def test_without_a_policy_untagged_manifests_stay() -> None:
    shop = process(Policy(grace_s=0, undelete_s=0, untagged_after_s=-1, upload_idle_s=0))
    old = run(shop.push_image("app", "latest", b"old"))
    run(shop.push_image("app", "latest", b"new"))
    run(shop.manifests.delete_tag("app", "latest"))

    run(shop.collect(passes=6))

    assert run(shop.manifests.find("app", old)).digest == old
    clean(shop)


def test_a_manifest_of_an_index_and_one_about_another_are_not_untagged() -> None:
    shop = process()
    child, signature = manifest_of(b"child"), manifest_of(b"sig", subject=manifest_of(b"child"))
    for layer in (b"child", b"sig"):
        run(shop.push_image("app", "", layer))
    run(shop.push("app", "multi", index_of(child), OCI_INDEX))
    run(shop.push("app", "", signature))
    # The manifest of the signature's own layer has neither tag nor index nor subject.
    run(shop.collect(passes=5))

    held = {sha256(child), sha256(signature), sha256(index_of(child))}
    assert held <= bytes_of(shop)
    assert sha256(manifest_of(b"sig")) not in bytes_of(shop)
    clean(shop)

    run(shop.manifests.delete_tag("app", "multi"))
    run(shop.collect(passes=16))
    assert bytes_of(shop) == set()
    assert shop.store.paths() == ["meta/registry-gc", "meta/registry-index"]


def test_uploads_expire_when_they_do_not_grow() -> None:
    shop = process(PATIENT)
    idle, alive = run(shop.uploads.start("app", "sha256")), run(shop.uploads.start("app", "sha256"))
    for _ in range(4):
        alive = run(shop.uploads.append(alive, pieces(b"more"), None))
        report = run(shop.collect(advance_s=40))
    with pytest.raises(RegistryError):
        run(shop.uploads.find("app", idle.upload_id))
    assert run(shop.uploads.find("app", alive.upload_id)).size == 16
    assert report.kept["uploads that grow"] == 1

    run(shop.collect(advance_s=51))
    assert shop.store.paths("uploads/") == []


def test_something_under_uploads_without_a_date_gets_one() -> None:
    shop = process(PATIENT)
    run(shop.store.put("uploads/unknown", b""))
    run(shop.collect(passes=2, advance_s=49))
    assert shop.store.paths("uploads/") == ["uploads/unknown"]
    run(shop.collect(advance_s=2))
    assert shop.store.paths("uploads/") == []


def test_an_upload_that_grows_while_it_expires_is_kept() -> None:
    shop = process()
    upload = run(shop.uploads.start("app", "sha256"))
    shop.clock.advance(1)
    commit = shop.store.commit

    async def grow_first(operations):  # type: ignore[no-untyped-def]
        shop.store.commit = commit
        await shop.uploads.append(upload, pieces(b"alive"), None)
        return await commit(operations)

    run(shop.garbage.run(dry_run=False))  # so that the books are complete
    upload = run(shop.uploads.start("app", "sha256"))
    shop.clock.advance(1)
    shop.store.commit = grow_first
    report = run(shop.garbage.run())

    assert report.changed_meanwhile == 1
    assert run(shop.uploads.find("app", upload.upload_id)).size == 5


def test_all_pages_are_looked_at() -> None:
    shop = process()
    for _ in range(2100):
        run(shop.uploads.start("app", "sha256"))
    assert run(shop.collect()).discarded_uploads == 2100


def test_a_dry_run_tells_and_changes_nothing() -> None:
    shop = process()
    run(shop.collect())
    run(shop.upload("app", b"loose"))
    run(shop.uploads.start("app", "sha256"))
    run(shop.manifests.delete("app", run(shop.push_image("app", "v1", b"layer"))))
    shop.clock.advance(10)
    before = dict(shop.store.entries)

    report = run(shop.garbage.run(dry_run=True))

    assert (report.doubted_blobs, report.purged_manifests, report.discarded_uploads) == (1, 1, 1)
    assert shop.store.entries == before


@pytest.fixture
def small_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every manifest is one that does not fit a commit."""
    monkeypatch.setattr(references, "OPERATIONS_MAX", 12)
    monkeypatch.setattr(references, "BATCH_MAX", 2)
    monkeypatch.setattr(purge, "_EVENTS_PER_COMMIT", 2)


def test_a_manifest_with_more_references_than_a_commit_holds() -> None:
    shop = process()
    layers = [b"layer %d" % number for number in range(300)]
    digest = run(shop.push_image("app", "v1", *layers))
    run(shop.collect(passes=3))
    assert len(bytes_of(shop)) == 302
    clean(shop)

    run(shop.manifests.delete("app", digest))
    run(shop.collect(passes=4))
    assert bytes_of(shop) == set()
    clean(shop)


def test_a_push_that_died_after_it_took_hold_is_let_go(small_commits: None) -> None:
    shop = process()
    layers = (b"one", b"two", b"three")
    for data in (config_of(layers), *layers):
        run(shop.upload("app", data))
    doomed = Process(FrailStore(shop.store, 3, after=False), shop.clock)

    with pytest.raises(Crashed):
        run(doomed.push("app", "v1", manifest_of(*layers)))
    assert len(shop.store.paths("repositories/app/_uses/")) == 4

    assert run(shop.collect()).released_pushes == 1
    run(shop.collect(passes=3))
    assert bytes_of(shop) == set()
    clean(shop)
