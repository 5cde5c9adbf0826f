"""Security case 9: many pushes of one tag at once, and passes between an upload and its manifest."""

from __future__ import annotations

import random

import pytest

from fabric.driver.registry.collection import Policy
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import parse_digest
from tests.unit.driver.registry.harness import sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import (
    AT_ONCE,
    Books,
    Clock,
    Process,
    config_of,
    interleave,
    manifest_of,
    run,
)

PUSHES = 50
GRACE_S = 100


@pytest.mark.parametrize("seed", range(5))
def test_security_case_09_fifty_pushes_of_one_tag_leave_one_complete_manifest(seed: int) -> None:
    store, clock = MemoryStore(), Clock()
    layers = [b"layer %d" % number for number in range(PUSHES)]
    shop = Process(store, clock, Policy(grace_s=GRACE_S, undelete_s=0, untagged_after_s=0, upload_idle_s=100))
    pushes = [Process(store, clock).push_image("app", "latest", b"shared", layer) for layer in layers]

    interleave([*pushes, *(shop.garbage.run() for _ in range(4))], random.Random(seed))

    found = run(shop.manifests.find("app", "latest"))
    assert found.digest in {parse_digest(sha256(manifest_of(b"shared", layer))) for layer in layers}
    events = run(shop.history.of("app", "latest"))
    assert events[-1].digest == found.digest, "the last change is the one that holds"
    assert Books(store).damage() == []
    run(shop.collect(passes=6, advance_s=GRACE_S + 1))
    assert len(Books(store).bytes) == 4, "a manifest, its config, two layers"
    assert Books(store).damage() == []


@pytest.mark.parametrize("is_new", [True, False], ids=["uploaded", "told that it is here"])
@pytest.mark.parametrize("age_s", [0, GRACE_S - 1, GRACE_S + 1, 2 * GRACE_S - 2])
def test_security_case_09_nothing_is_taken_between_an_upload_and_its_manifest(
    is_new: bool, age_s: int
) -> None:
    """Whatever passes run, at whatever age of the blob: the client has the grace time."""
    policy = Policy(grace_s=GRACE_S, undelete_s=0, untagged_after_s=0, upload_idle_s=0)
    shop = Process(MemoryStore(), Clock(), policy)
    layers = (b"one", b"two")
    contents = (config_of(layers), *layers)
    for data in contents:
        run(shop.upload("app", data))
    for _ in range(4):
        run(shop.collect(advance_s=age_s / 4))

    for data in contents:
        digest = parse_digest(sha256(data))
        if is_new or _is_unknown(shop, data):
            run(shop.upload("app", data))
        assert run(shop.blobs.offer("app", digest)) == len(data)
    for _ in range(9):
        run(shop.collect(advance_s=GRACE_S / 10))
    digest = run(shop.push("app", "v1", manifest_of(*layers)))

    run(shop.collect(passes=6, advance_s=GRACE_S + 1))
    assert run(shop.manifests.find("app", "v1")).digest == digest
    assert Books(shop.store).damage() == []


def _is_unknown(shop: Process, data: bytes) -> bool:
    try:
        run(shop.blobs.offer("app", parse_digest(sha256(data))))
    except RegistryError:
        return True
    return False


def test_security_case_09_without_a_grace_time_a_push_is_refused_and_never_broken() -> None:
    shop = Process(MemoryStore(), Clock(), AT_ONCE)
    layers = (b"one",)
    for data in (config_of(layers), *layers):
        run(shop.upload("app", data))
    run(shop.collect(passes=3))

    with pytest.raises(RegistryError, match="references content unknown"):
        run(shop.push("app", "v1", manifest_of(*layers)))
    assert shop.store.paths("repositories/") == []
