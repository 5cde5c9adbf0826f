"""One thing happens, whole, at one moment of another: every pair, at every step of the store.

What the random orders of ``test_garbage_races`` meet now and then, these meet for certain.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from fabric.driver.registry import purge, references
from fabric.driver.registry.collection import Policy
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import parse_digest
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
    run,
)

Deed = Callable[[Process], Coroutine[Any, Any, Any]]

LAYERS = (b"shared", b"own")
IMAGE = manifest_of(*LAYERS)
IMAGE_DIGEST = parse_digest(sha256(IMAGE))
LOOSE = b"loose"
NO_UNTAGGED = Policy(grace_s=0, undelete_s=0, untagged_after_s=-1, upload_idle_s=1000)


class SteppedStore:
    """Passes everything on; before its call number ``at`` it lets something else happen, once."""

    def __init__(self, store: MemoryStore, at: int, deed: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._store = store
        self._at = at
        self._deed = deed
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("stat", "open", "read", "put", "commit", "list", "stage"):
            return method

        async def step(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self._at:
                await self._deed()
            return await method(*arguments, **options)

        return step


# --- what can happen ------------------------------------------------------------------------------


async def a_pass(process: Process) -> None:
    process.clock.advance(1)
    report = await process.garbage.run()
    assert report.problems == []


async def two_passes(process: Process) -> None:
    await a_pass(process)
    await a_pass(process)


async def an_upload(process: Process) -> None:
    await process.upload("app", LOOSE)
    await process.upload("app", LAYERS[1])


async def an_upload_elsewhere(process: Process) -> None:
    await process.upload("new", LOOSE)
    await process.upload("new", LAYERS[1])


async def a_mount(process: Process) -> None:
    await process.blobs.mount("new", parse_digest(sha256(LAYERS[1])), "app")
    await process.blobs.mount("new", parse_digest(sha256(LOOSE)), "app")


async def a_push(process: Process) -> None:
    """By a client that uploads what it is told to, and without a grace time may be told so once more."""
    for patience in (1, 0):
        for data in (config_of(LAYERS), *LAYERS):
            try:
                await process.blobs.offer("app", parse_digest(sha256(data)))
            except RegistryError:
                await process.upload("app", data)
        try:
            await process.push("app", "v2", IMAGE)
            return
        except RegistryError as error:
            assert error.code == "MANIFEST_BLOB_UNKNOWN"
            assert patience


async def a_bold_push(process: Process) -> None:
    """By a client that was told long ago that all blobs are here."""
    try:
        await process.push("app", "v2", IMAGE)
    except RegistryError as error:
        assert error.code == "MANIFEST_BLOB_UNKNOWN"


async def a_push_of_an_index(process: Process) -> None:
    try:
        await process.push("app", "multi", index_of(IMAGE), OCI_INDEX)
    except RegistryError as error:
        assert error.code == "MANIFEST_BLOB_UNKNOWN"


async def a_deletion(process: Process) -> None:
    try:
        await process.manifests.delete("app", IMAGE_DIGEST)
    except RegistryError as error:
        assert error.code == "MANIFEST_UNKNOWN"


async def a_restoration(process: Process) -> None:
    try:
        await process.undelete.manifest("app", IMAGE_DIGEST, "operator")
    except RegistryError as error:
        assert error.code in ("MANIFEST_UNKNOWN", "MANIFEST_BLOB_UNKNOWN")


async def a_restoration_of_a_tag(process: Process) -> None:
    try:
        await process.undelete.tag("app", "v1", None, "operator")
    except RegistryError as error:
        assert error.code in ("MANIFEST_UNKNOWN", "MANIFEST_BLOB_UNKNOWN")


async def a_restoration_and_a_deletion(process: Process) -> None:
    await a_restoration(process)
    await a_deletion(process)


async def a_deletion_and_a_pass(process: Process) -> None:
    await a_deletion(process)
    await a_pass(process)


def a_pass_that_is_killed(commits: int) -> Deed:
    """After so many of its commits."""

    async def killed(process: Process) -> None:
        process.clock.advance(1)
        frail = FrailStore(process.store, commits, after=True)
        with contextlib.suppress(Crashed):
            await Process(frail, process.clock, process.policy).garbage.run()

    killed.__name__ = f"a_pass_killed_after_{commits}"
    return killed


DEEDS: list[Deed] = [
    a_pass, two_passes, an_upload, an_upload_elsewhere, a_mount, a_push, a_bold_push, a_push_of_an_index,
    a_deletion, a_deletion_and_a_pass, a_restoration, a_restoration_of_a_tag,
]  # fmt: skip


# --- what there is before -------------------------------------------------------------------------


async def untagged(process: Process) -> None:
    """An image whose tag was moved, and a blob without a manifest."""
    await process.push_image("app", "v1", *LAYERS)
    await process.push_image("app", "v1", b"shared", b"newer")
    await process.upload("app", LOOSE)


async def deleted(process: Process) -> None:
    """An image in the trash, of which a pass already knows; another shares a layer."""
    await process.push_image("app", "kept", b"shared")
    await process.push_image("app", "v1", *LAYERS)
    await process.manifests.delete("app", IMAGE_DIGEST)
    await process.upload("app", LOOSE)


async def doubted(process: Process) -> None:
    """Blobs without a manifest that are in doubt."""
    for data in (config_of(LAYERS), *LAYERS, LOOSE):
        await process.upload("app", data)
    await a_pass(process)


async def uploaded_again(process: Process) -> None:
    """An image whose blobs have marks though it needs them."""
    await process.push_image("app", "v1", *LAYERS)
    for data in (config_of(LAYERS), *LAYERS):
        await process.upload("app", data)


SCENES: list[Deed] = [untagged, deleted, doubted, uploaded_again]


def play(scene: Deed, main: Deed, rival: Deed, at: int, policy: Policy) -> int:
    """``rival`` before step ``at`` of ``main``; how many steps there were."""
    store, clock = MemoryStore(), Clock()
    quiet = Process(store, clock, policy)
    run(quiet.garbage.run())
    run(scene(quiet))
    clock.advance(1)
    stepped = SteppedStore(store, at, lambda: rival(quiet))
    run(main(Process(stepped, clock, policy)))
    damage = Books(store).damage()
    assert damage == [], f"{rival.__name__} at step {at}: {json.dumps(damage)}"
    run(quiet.collect(passes=12))
    books = Books(store)
    assert books.damage() == [], f"{rival.__name__} at step {at}, later"
    assert books.waste() == [], f"{rival.__name__} at step {at}"
    return stepped.calls


def play_all(scene: Deed, main: Deed, policy: Policy, rivals: Sequence[Deed] = DEEDS) -> None:
    for rival in rivals:
        at = 1
        while play(scene, main, rival, at, policy) >= at:
            at += 1
        assert at > 1


def test_anything_at_any_step_of_a_pass() -> None:
    play_all(deleted, a_pass, AT_ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("scene", [untagged, doubted, uploaded_again], ids=lambda scene: scene.__name__)
def test_anything_at_any_step_of_a_pass_over_other_things(scene: Deed) -> None:
    play_all(scene, a_pass, AT_ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_anything_at_any_step_of_two_passes(scene: Deed) -> None:
    play_all(scene, two_passes, AT_ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("main", DEEDS[2:], ids=lambda main: main.__name__)
def test_anything_at_any_step_of_anything(scene: Deed, main: Deed) -> None:
    play_all(scene, main, NO_UNTAGGED)


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@pytest.mark.parametrize(
    "main", [a_pass, a_bold_push, a_deletion, a_restoration], ids=lambda main: main.__name__
)
def test_the_same_with_manifests_that_do_not_fit_a_commit(
    scene: Deed, main: Deed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "OPERATIONS_MAX", 20)
    monkeypatch.setattr(references, "BATCH_MAX", 1)
    monkeypatch.setattr(purge, "_EVENTS_PER_COMMIT", 2)
    play_all(scene, main, AT_ONCE, [*DEEDS, *map(a_pass_that_is_killed, range(1, 5))])


def test_what_is_restored_and_deleted_again_while_it_is_purged_is_kept_once_more() -> None:
    policy = Policy(grace_s=0, undelete_s=100, untagged_after_s=-1, upload_idle_s=1000)
    at, is_at_end = 1, False
    while not is_at_end:
        store, clock = MemoryStore(), Clock()
        quiet = Process(store, clock, policy)
        run(quiet.garbage.run())
        run(deleted(quiet))
        clock.advance(101)
        stepped = SteppedStore(store, at, lambda quiet=quiet: a_restoration_and_a_deletion(quiet))  # type: ignore[misc]
        run(a_pass(Process(stepped, clock, policy)))
        run(quiet.collect(passes=5))
        assert Books(store).damage() == [], f"at step {at}"
        is_at_end = stepped.calls < at
        at += 1
