"""Two registry processes over one fabric: what one of them began the other goes on with."""

from __future__ import annotations

import http.client
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import FabricUp, wait_until
from tests.e2e.http_registry import HttpRegistry, digest_of

MIB = 1024 * 1024
DATA = random.Random(5).randbytes(26 * MIB)
NAME = "two/registries"


class SecondRegistry(HttpRegistry):
    """A ``fabric registry`` of its own on the proxy of a fabric that runs."""

    def __init__(self, fabric: FabricUp, log: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.http = f"127.0.0.1:{probe.getsockname()[1]}"
        super().__init__(f"http://{self.http}")
        command = [
            sys.executable, "-m", "fabric", "registry", "--http", self.http,
            "--proxy", fabric.proxy.removeprefix("tcp://"), *options,
        ]  # fmt: skip
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        wait_until(self.answers, "the second registry", log.read_text)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("GET", "/healthz").status == 200
        except OSError:
            return False

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def first(shared_fabric: FabricUp) -> HttpRegistry:
    return HttpRegistry(shared_fabric.registry)


@pytest.fixture
def second(shared_fabric: FabricUp, tmp_path: Path) -> Iterator[SecondRegistry]:
    registry = SecondRegistry(shared_fabric, tmp_path / "second.log")
    yield registry
    if registry.process.poll() is None:
        assert registry.end(signal.SIGTERM) == 0


def patch(registry: HttpRegistry, location: str, start: int, end: int) -> None:
    answer = registry.ask("PATCH", location, DATA[start:end], Content_Range=f"{start}-{end - 1}")
    assert (answer.status, answer.headers["range"]) == (202, f"0-{end - 1}"), answer


def stored_bytes(registry: HttpRegistry, location: str) -> int:
    """How much of an upload is here; 0 also when it is one byte."""
    answer = registry.ask("GET", location)
    assert answer.status == 204, answer
    last = int(answer.headers["range"].removeprefix("0-"))
    return last + 1 if last else 0


def test_an_upload_goes_from_one_registry_to_the_other(first: HttpRegistry, second: SecondRegistry) -> None:
    location = first.begin(NAME)
    patch(first, location, 0, 5 * MIB)
    patch(second, location, 5 * MIB, 5 * MIB + 1000)
    out_of_order = second.ask("PATCH", location, b"x", Content_Range="0-0")
    assert (out_of_order.status, out_of_order.headers["range"]) == (416, f"0-{5 * MIB + 999}")
    patch(first, location, 5 * MIB + 1000, 9 * MIB)

    digest = digest_of(DATA[: 9 * MIB])
    assert second.finish(location, digest).status == 201
    assert first.finish(location, digest).status == 201, "a repeated end is answered as the first"

    for registry in (first, second):
        assert registry.get_blob(NAME, digest).body == DATA[: 9 * MIB]


def test_what_one_deletes_is_gone_at_the_other(first: HttpRegistry, second: SecondRegistry) -> None:
    digest, manifest = first.push_image(NAME, "moving", [b"layer"])
    assert second.get_manifest(NAME, "moving").body == first.get_manifest(NAME, "moving").body == manifest
    other, moved = second.push_image(NAME, "moving", [b"another layer"])
    assert first.get_manifest(NAME, "moving").body == moved
    assert second.ask("DELETE", f"/v2/{NAME}/manifests/moving").status == 202
    assert first.get_manifest(NAME, "moving").status == 404
    for one in (digest, other):
        assert first.get_manifest(NAME, one).status == 200
        assert first.ask("DELETE", f"/v2/{NAME}/manifests/{one}").status == 202
        assert second.get_manifest(NAME, one).status == 404
    layer = digest_of(b"another layer")
    assert first.ask("DELETE", f"/v2/{NAME}/blobs/{layer}").status == 202
    assert second.get_blob(NAME, layer).status == 404


def test_a_registry_killed_in_the_middle_of_a_patch_costs_only_what_it_had_not_acknowledged(
    first: HttpRegistry, second: SecondRegistry
) -> None:
    location = second.begin(NAME)
    patch(second, location, 0, 3 * MIB)
    sent, killed = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield DATA[3 * MIB : 20 * MIB]
        sent.set()
        assert killed.wait(60)
        yield DATA[20 * MIB :]

    with ThreadPoolExecutor(1) as pool:
        breaking = pool.submit(second.ask, "PATCH", location, body())
        assert sent.wait(60)
        second.end(signal.SIGKILL)
        killed.set()
        with pytest.raises((OSError, http.client.HTTPException)):
            breaking.result(60)

    here = stored_bytes(first, location)
    assert 3 * MIB <= here <= 20 * MIB
    patch(first, location, here, len(DATA))
    digest = digest_of(DATA)
    assert first.finish(location, digest).status == 201
    assert first.get_blob(NAME, digest).body == DATA


def test_fifty_pushes_of_one_tag_at_two_registries_leave_one_complete_manifest(
    first: HttpRegistry, second: SecondRegistry
) -> None:
    name = "two/race"

    def push(number: int) -> tuple[str, bytes]:
        registry = (first, second)[number % 2]
        return registry.push_image(name, "latest", [f"layer {number % 5}".encode()])

    with ThreadPoolExecutor(16) as pool:
        pushed = dict(pool.map(push, range(50)))

    assert len(pushed) == 5
    answers = [registry.get_manifest(name, "latest") for registry in (first, second)]
    assert answers[0].body == answers[1].body == pushed[answers[0].headers["docker-content-digest"]]
    for digest, manifest in pushed.items():
        assert first.get_manifest(name, digest).body == manifest
    for number in range(5):
        layer = f"layer {number}".encode()
        assert second.get_blob(name, digest_of(layer)).body == layer
