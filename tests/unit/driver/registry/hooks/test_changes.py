"""Which commits are told of, and what of them: whatever path a change takes."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from fabric.driver.registry.collection import Policy
from fabric.driver.registry.hooks.changes import Change
from fabric.driver.registry.hooks.limits import HOOKS_MAX
from fabric.driver.registry.hooks.origin import Origin, originating
from fabric.driver.registry.hooks.outbox import Announcer, Entry, entry_of, entry_step
from fabric.driver.registry.hooks.wishes import Wish
from fabric.driver.registry.indexing import INDEX_PATH
from fabric.driver.registry.manifest_store import TAGS_PER_PUSH_MAX
from fabric.driver.registry.names import parse_digest
from fabric.driver.registry.retention import Retention, parse_rules
from fabric.wire.messages import ObjectInfo
from tests.unit.driver.registry.harness import OCI_INDEX, OCI_MANIFEST, sha256
from tests.unit.driver.registry.hooks.hooks_world import CI, SOURCE, entries, process
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Clock, Crashed, FrailStore, Process, index_of, manifest_of, run

DATA = manifest_of(b"one")
DIGEST = sha256(DATA)
SIZE = len(DATA)


class Shop:
    def __init__(self, *wishes: Wish, policy: Policy | None = None, who: str = "") -> None:
        self.store = MemoryStore()
        self.clock = Clock()
        now = Policy(grace_s=0, undelete_s=0, untagged_after_s=0, upload_idle_s=0)
        self.process = process(self.store, self.clock, *wishes, policy=policy or now, who=who)

    def told(self, hook: str = "ci") -> list[Change]:
        """All that was told since the last time, in order."""
        found = [change for entry in entries(self.store, hook) for change in entry.changes]
        for path in self.store.paths(f"outbox/{hook}/"):
            del self.store.entries[path]
        return found


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_push_of_a_tag(shop: Shop) -> None:
    run(shop.process.push_image("app", "v1", b"one"))
    assert shop.told() == [Change("push", "app", DIGEST, OCI_MANIFEST, SIZE, ("v1",), "tester")]


def test_a_push_with_many_tags_is_one_entry(shop: Shop) -> None:
    run(shop.process.push_image("app", "first", b"one"))
    shop.told()
    tags = [f"{number:02d}".ljust(128, "x") for number in range(TAGS_PER_PUSH_MAX)]
    run(shop.process.manifests.push("app", parse_digest(DIGEST), tags, DATA, OCI_MANIFEST, "tester"))
    assert shop.told() == [Change("push", "app", DIGEST, OCI_MANIFEST, SIZE, tuple(tags), "tester")]


def test_a_push_without_a_tag_and_who_made_the_request(shop: Shop) -> None:
    for data in (b"one", json.dumps({"layers": [sha256(b"one")]}).encode()):
        run(shop.process.upload("app", data))
    with originating(Origin(user="alice", host="here:5000")):
        run(shop.process.push("app", "", DATA))
    (entry,) = entries(shop.store)
    assert entry.changes == (Change("push", "app", DIGEST, OCI_MANIFEST, SIZE, (), "alice"),)
    assert (entry.origin.host, entry.source, entry.at_ms) == ("here:5000", SOURCE, shop.clock.now_ms)


def test_uploads_mounts_and_unlinked_blobs_are_not_told(shop: Shop) -> None:
    digest = run(shop.process.upload("app", b"one"))
    assert run(shop.process.blobs.mount("other", digest, "app"))
    run(shop.process.blobs.delete("app", digest, "tester"))
    assert shop.told() == []


def test_an_index_and_its_manifests_are_told_of_each(shop: Shop) -> None:
    run(shop.process.push_image("app", "", b"one"))
    index = index_of(DATA)
    run(shop.process.push("app", "v1", index, OCI_INDEX))
    assert [(each.digest, each.media_type) for each in shop.told()] == [
        (DIGEST, OCI_MANIFEST),
        (sha256(index), OCI_INDEX),
    ]


def test_a_deletion_of_a_tag(shop: Shop) -> None:
    run(shop.process.push_image("app", "v1", b"one"))
    shop.told()
    run(shop.process.manifests.delete_tag("app", "v1", "alice"))
    assert shop.told() == [Change("delete", "app", tags=("v1",), who="alice")]


def test_a_deletion_of_a_manifest_tells_of_its_tags_too(shop: Shop) -> None:
    for tag in ("v1", "latest"):
        run(shop.process.push_image("app", tag, b"one"))
    shop.told()
    run(shop.process.manifests.delete("app", parse_digest(DIGEST), "alice"))
    assert shop.told() == [
        Change("delete", "app", tags=("latest", "v1"), who="alice"),
        Change("delete", "app", DIGEST, who="alice"),
    ]


def test_a_manifest_with_more_tags_than_a_commit_deletes_and_as_many_hooks_as_there_may_be() -> None:
    wishes = [Wish(f"hook{number}", ("push", "delete"), ("**",), 60.0) for number in range(HOOKS_MAX)]
    shop = Shop(*wishes)
    run(shop.process.push_image("app", "first", b"one"))
    tags = [f"{number:03d}".ljust(128, "x") for number in range(150)]
    for start in range(0, 150, TAGS_PER_PUSH_MAX):
        some = tags[start : start + TAGS_PER_PUSH_MAX]
        run(shop.process.manifests.push("app", parse_digest(DIGEST), some, DATA, OCI_MANIFEST))
    for wish in wishes:
        shop.told(wish.name)

    run(shop.process.manifests.delete("app", parse_digest(DIGEST)))

    for wish in wishes:
        told = shop.told(wish.name)
        assert sorted(tag for each in told for tag in each.tags) == sorted([*tags, "first"])
        assert told[-1].digest == DIGEST


def test_a_restoration_is_a_push_by_the_operator() -> None:
    shop = Shop(policy=Policy(grace_s=9, undelete_s=9, untagged_after_s=-1, upload_idle_s=9), who="operator")
    run(shop.process.push_image("app", "v1", b"one"))
    run(shop.process.manifests.delete("app", parse_digest(DIGEST), "alice"))
    shop.told()
    run(shop.process.undelete.manifest("app", parse_digest(DIGEST), "operator"))
    assert shop.told() == [
        Change("push", "app", DIGEST, OCI_MANIFEST, SIZE, (), "operator"),
        Change("push", "app", DIGEST, OCI_MANIFEST, SIZE, ("v1",), "operator"),
    ]


def test_retention_is_a_deletion_of_tags(shop: Shop) -> None:
    run(shop.process.push_image("app", "v1", b"one"))
    shop.told()

    async def retain() -> None:
        rules = parse_rules({"rule": [{"repositories": ["app"], "keep_last": 0}]})
        store = shop.process.store
        retention = Retention(store, shop.process.manifests, rules)
        assert [each.keep async for each in retention.run(shop.clock.now_ms, dry_run=False)] == [False]

    asyncio.run(retain())
    assert shop.told() == [Change("delete", "app", tags=("v1",), who="retention")]


def test_garbage_collection_tells_of_untagged_manifests_and_of_the_end_of_a_repository(shop: Shop) -> None:
    run(shop.process.push_image("app", "v1", b"one"))
    run(shop.process.push_image("app", "v2", b"two"))
    for tag in ("v1", "v2"):
        run(shop.process.manifests.delete_tag("app", tag, "alice"))
    shop.told()
    run(shop.process.collect(passes=6, advance_s=10))
    told = shop.told()
    deleted = {(each.digest, each.who) for each in told[:-1]}
    assert deleted == {(DIGEST, "garbage collection"), (sha256(manifest_of(b"two")), "garbage collection")}
    assert told[-1] == Change("delete", "app", who="garbage collection")
    assert len(told) == 3, "what is purged from the trash was told of before"


def test_the_books_of_an_older_store_are_completed_without_a_word(shop: Shop) -> None:
    run(Process(shop.store, shop.clock).push_image("app", "v1", b"one"))
    for path in [*shop.store.paths("owners/"), *shop.store.paths("repositories/app/_history/")]:
        del shop.store.entries[path]
    run(shop.process.collect())
    assert shop.store.paths("repositories/app/_history/"), "the history was written"
    assert INDEX_PATH in shop.store.entries
    assert shop.told() == []


def test_a_commit_that_fails_tells_nothing(shop: Shop) -> None:
    run(shop.process.push_image("app", "v1", b"one"))
    shop.told()
    with pytest.raises(Exception, match="generation"):
        run(shop.process.manifests.delete_tag_at("app", "v1", 1, "alice"))
    assert shop.told() == []


def test_each_hook_is_told_what_it_wants() -> None:
    deletions = Wish("deletions", ("delete",), ("**",), 60.0)
    team = Wish("team", ("push", "delete"), ("team/*",), 60.0)
    shop = Shop(CI, deletions, team)
    run(shop.process.push_image("app", "v1", b"one"))
    run(shop.process.push_image("team/app", "v1", b"one"))
    run(shop.process.manifests.delete_tag("app", "v1"))
    assert [(each.action, each.repository) for each in shop.told("deletions")] == [("delete", "app")]
    assert [(each.action, each.repository) for each in shop.told("team")] == [("push", "team/app")]
    assert len(shop.told("ci")) == 3


def test_without_hooks_commits_are_what_they_were() -> None:
    clock, plain, told = Clock(), MemoryStore(), MemoryStore()
    run(Process(plain, clock).push_image("app", "v1", b"one"))

    async def nobody() -> dict[str, Wish]:
        return {}

    clock = Clock()
    announcer = Announcer(told, nobody, SOURCE, clock.wall_ms, clock.new_id)
    run(Process(announcer, clock).push_image("app", "v1", b"one"))
    assert told.commits == plain.commits


def test_an_entry_of_any_length_comes_back() -> None:
    tags = tuple(f"{number:03d}".ljust(128, "x") for number in range(200))
    origin = Origin(useragent="\N{SNOWMAN}" * 200)
    entry = Entry("token", 1_700_000_000_000, (Change("delete", "r" * 255, tags=tags),), origin, SOURCE)
    step = entry_step("ci", entry)
    assert all(len(text) <= 4096 for text in step.attributes.values()) and len(step.attributes) <= 16
    assert entry_of(ObjectInfo(step.path, 0, 1, 1, "", 0, dict(step.attributes), False)) == entry


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("commits", range(1, 9))
def test_a_process_killed_at_any_commit_has_told_exactly_what_it_did(commits: int, after: bool) -> None:
    store, clock = MemoryStore(), Clock()
    killed = process(FrailStore(store, commits, after=after), clock)

    async def work() -> None:
        await killed.push_image("app", "v1", b"one")
        await killed.push_image("app", "v2", b"two")
        await killed.manifests.delete_tag("app", "v1", "tester")

    with suppress(Crashed):
        run(work())
    tags: set[str] = set()
    for entry in entries(store):
        for change in entry.changes:
            tags = tags | set(change.tags) if change.action == "push" else tags - set(change.tags)
    assert tags == {path.rsplit("/", 1)[1] for path in store.paths("repositories/app/_tags/")}
