"""Two registries keep names in memory; what is done at one of them is so at the other at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.settings import Settings
from tests.e2e.conftest import FabricUp, wait_until
from tests.e2e.http_registry import HttpRegistry, digest_of
from tests.e2e.test_conformance_two_registries import SecondRegistry

ROUNDS = 60
NAME = "names/everywhere"
LEASE_S = Settings().name_lease_s


@pytest.fixture
def first(fabric: FabricUp) -> HttpRegistry:
    return HttpRegistry(fabric.registry)


@pytest.fixture
def second(fabric: FabricUp, tmp_path: Path) -> Iterator[SecondRegistry]:
    registry = SecondRegistry(fabric, tmp_path / "second.log")
    yield registry
    if registry.process.poll() is None:
        assert registry.end(signal.SIGTERM) == 0


@pytest.fixture
def fabric(shared_fabric: FabricUp) -> FabricUp:
    return shared_fabric


def tag_at(registry: HttpRegistry, tag: str) -> str:
    """The digest that a tag names there; empty when there is no such tag."""
    answer = registry.ask("HEAD", f"/v2/{NAME}/manifests/{tag}")
    assert answer.status in (200, 404)
    return answer.headers["docker-content-digest"] if answer.status == 200 else ""


def test_a_moved_or_deleted_tag_is_so_everywhere_at_once(first: HttpRegistry, second: SecondRegistry) -> None:
    images = [first.push_image(NAME, f"image-{n}", [b"layer %d" % n]) for n in range(2)]
    for number in range(ROUNDS):
        here, there = (first, second) if number % 2 else (second, first)
        digest, data = images[number % 2]
        assert here.put_manifest(NAME, "moving", data).status == 201
        for _ in range(3):  # once from the store, then from memory
            assert [tag_at(registry, "moving") for registry in (there, here)] == [digest, digest]
        if number % 3 == 0:
            assert here.ask("DELETE", f"/v2/{NAME}/manifests/moving").status == 202
            assert [tag_at(registry, "moving") for registry in (there, here)] == ["", ""]


def test_deleted_manifests_and_blobs_are_gone_everywhere_at_once(
    first: HttpRegistry, second: SecondRegistry
) -> None:
    for number in range(10):
        here, there = (first, second) if number % 2 else (second, first)
        layer = b"to be deleted %d" % number
        digest, data = here.push_image(NAME, "going", [layer])
        blob = f"/v2/{NAME}/blobs/{digest_of(layer)}"
        for _ in range(2):
            assert there.get_manifest(NAME, digest).body == data
            assert there.ask("HEAD", blob).status == 200
            assert there.ask("GET", blob).body == layer
        assert here.ask("DELETE", f"/v2/{NAME}/manifests/{digest}").status == 202
        assert there.get_manifest(NAME, digest).status == 404
        assert tag_at(there, "going") == ""
        assert here.ask("DELETE", blob).status == 202
        assert [there.ask(method, blob).status for method in ("HEAD", "GET")] == [404, 404]


def test_a_registry_that_hangs_holds_nobody_up_for_long_and_wakes_up_knowing_nothing(
    first: HttpRegistry, second: SecondRegistry
) -> None:
    (old, _), (new, data) = (first.push_image(NAME, f"hung-{n}", [b"hung %d" % n]) for n in range(2))
    first.put_manifest(NAME, "hung", first.get_manifest(NAME, old).body)
    assert tag_at(second, "hung") == tag_at(second, "hung") == old
    os.kill(second.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert first.put_manifest(NAME, "hung", data).status == 201
        assert time.monotonic() - began < LEASE_S + 2.0
        assert tag_at(first, "hung") == new
    finally:
        os.kill(second.process.pid, signal.SIGCONT)
    assert tag_at(second, "hung") == new


def test_a_master_that_was_killed_forgets_no_registry(
    fabric: FabricUp, first: HttpRegistry, second: SecondRegistry
) -> None:
    images = [first.push_image(NAME, f"killed-{n}", [b"killed %d" % n]) for n in range(2)]
    for number in range(2):
        digest, data = images[number]
        assert first.put_manifest(NAME, "killed", data).status == 201
        assert [tag_at(second, "killed") for _ in range(2)] == [digest] * 2
        fabric.wait_restarted("master", fabric.kill("master"))
        digest, data = images[1 - number]
        wait_until(
            lambda data=data: first.put_manifest(NAME, "killed", data).status == 201,  # type: ignore[misc]
            "the master",
            fabric.story,
        )
        assert tag_at(second, "killed") == digest
