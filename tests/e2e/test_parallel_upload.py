"""One blob in parts, at two registry processes over a fabric; some die in the middle."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import FabricUp, needs, wait_until
from tests.e2e.http_registry import MANIFEST_TYPE, Answer, HttpRegistry, digest_of
from tests.e2e.test_conformance_two_registries import SecondRegistry

MIB = 1024 * 1024
PART = 8 * MIB
DATA = random.Random(6).randbytes(5 * PART + 1001)
DIGEST = digest_of(DATA)
STARTS = range(0, len(DATA), PART)
NAME = "in/parts"


@pytest.fixture
def first(shared_fabric: FabricUp) -> HttpRegistry:
    return HttpRegistry(shared_fabric.registry)


@pytest.fixture
def second(shared_fabric: FabricUp, tmp_path: Path) -> Iterator[SecondRegistry]:
    registry = SecondRegistry(shared_fabric, tmp_path / "second.log")
    yield registry
    if registry.process.poll() is None:
        assert registry.end(signal.SIGTERM) == 0


def begin(registry: HttpRegistry) -> str:
    answer = registry.ask("POST", f"/v2/{NAME}/_fabric/uploads/parts", b"")
    assert answer.status == 202, answer
    return registry.local(answer.headers["location"])


def send(registry: HttpRegistry, location: str, start: int) -> Answer:
    end = min(start + PART, len(DATA))
    return registry.ask("PATCH", location, DATA[start:end], Content_Range=f"{start}-{end - 1}")


def progress(registry: HttpRegistry, location: str) -> Any:
    answer = registry.ask("GET", location)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def finish(registry: HttpRegistry, location: str) -> Answer:
    """The answer to the end, when the digest is there."""
    answers: list[Answer] = []

    def is_over() -> bool:
        path = f"{location}?digest={DIGEST}&size={len(DATA)}"
        answers.append(registry.ask("PUT", path, b""))
        return answers[-1].status != 202

    wait_until(is_over, "the digest of an upload in parts")
    return answers[-1]


def test_parts_through_both_registries_in_any_order(first: HttpRegistry, second: SecondRegistry) -> None:
    location = begin(first)
    starts = list(STARTS)
    random.Random(1).shuffle(starts)
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda start: send((first, second)[start // PART % 2], location, start), starts)
        )
    assert [answer.status for answer in answers] == [202] * len(starts)
    assert progress(second, location)["size"] == len(DATA)

    assert finish(second, location).status == 201
    assert finish(first, location).status == 201, "a repeated end is answered as the first"

    for registry in (first, second):
        assert registry.get_blob(NAME, DIGEST).body == DATA
        across = registry.get_blob(NAME, DIGEST, Range=f"bytes={PART - 5}-{2 * PART + 5}")
        assert across.body == DATA[PART - 5 : 2 * PART + 6]


def test_a_registry_killed_in_the_middle_of_a_part_costs_that_part_only(
    first: HttpRegistry, second: SecondRegistry
) -> None:
    location = begin(second)
    for start in (0, 2 * PART, 4 * PART):
        assert send(second, location, start).status == 202
    sent, killed = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield DATA[PART : PART + PART // 2]
        sent.set()
        assert killed.wait(60)
        yield DATA[PART + PART // 2 : 2 * PART]

    declared = {"Content_Range": f"{PART}-{2 * PART - 1}", "Content_Length": str(PART)}
    with ThreadPoolExecutor(1) as pool:
        breaking = pool.submit(second.ask, "PATCH", location, body(), **declared)
        assert sent.wait(60)
        second.end(signal.SIGKILL)
        killed.set()
        with pytest.raises((OSError, http.client.HTTPException)):
            breaking.result(60)

    here = progress(first, location)
    assert here["size"] == PART
    assert [part["start"] for part in here["waiting"]] == [2 * PART, 4 * PART]
    for start in (PART, 3 * PART, 5 * PART):
        assert send(first, location, start).status == 202
    assert progress(first, location)["size"] == len(DATA)
    assert finish(first, location).status == 201, "though the process died that had begun the digest"
    assert first.get_blob(NAME, DIGEST).body == DATA


def test_a_master_that_dies_between_parts_loses_none(start: Any) -> None:
    fabric: FabricUp = start("--replicas", "1").wait_ready()
    registry = HttpRegistry(fabric.registry)
    location = begin(registry)
    for begins in reversed(STARTS[1:]):
        assert send(registry, location, begins).status == 202
    old = fabric.kill("master")
    fabric.wait_restarted("master", old)
    fabric.wait_writable()
    wait_until(lambda: send(registry, location, 0).status == 202, "the first part", fabric.story)
    assert finish(registry, location).status == 201
    for name in ("master", "chunk-1"):
        fabric.wait_restarted(name, fabric.kill(name))
    fabric.wait_writable()
    wait_until(lambda: registry.get_blob(NAME, DIGEST).body == DATA, "the blob again", fabric.story)


def test_push_blob_that_is_killed_goes_on_where_it_was(
    shared_fabric: FabricUp, first: HttpRegistry, tmp_path: Path
) -> None:
    data = random.Random(7).randbytes(64 * MIB + 3)
    file = tmp_path / "layer"
    file.write_bytes(data)
    address = shared_fabric.registry.removeprefix("http://")
    command = [
        sys.executable, "-m", "fabric", "registry", "push-blob", f"{address}/{NAME}", str(file),
        "--part-mib", "4", "--parallel", "2",
    ]  # fmt: skip
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    pushing = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    notes = tmp_path / "cache" / "fabric" / "pushes"

    def location() -> str:
        found = list(notes.glob("[0-9a-f]*.json")) if notes.exists() else []
        return str(json.loads(found[0].read_text())["location"]) if found else ""

    wait_until(lambda: bool(location()) and progress(first, location())["size"] > 0, "the first parts")
    pushing.send_signal(signal.SIGKILL)
    pushing.communicate()
    left = progress(first, location())
    assert 0 < left["size"] < len(data), "it was killed in the middle"

    again = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert (again.returncode, again.stdout.decode().strip()) == (0, digest_of(data)), again.stderr
    assert first.get_blob(NAME, digest_of(data)).body == data


def test_a_blob_that_push_blob_sent_is_a_layer_for_skopeo(
    shared_fabric: FabricUp, first: HttpRegistry, tmp_path: Path
) -> None:
    skopeo = needs("skopeo")
    file = tmp_path / "layer"
    file.write_bytes(DATA)
    address = shared_fabric.registry.removeprefix("http://")
    pushed = shared_fabric.fabric("registry", "push-blob", f"{address}/{NAME}", str(file), "--fresh")
    digest = pushed.stdout.decode().strip()
    assert (pushed.returncode, digest) == (0, DIGEST), pushed.stderr
    config = b'{"architecture":"amd64","os":"linux"}'
    assert first.put_blob(NAME, config).status == 201
    config_type = "application/vnd.oci.image.config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": config_type, "digest": digest_of(config), "size": len(config)},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(DATA)}
        ],
    }
    assert first.put_manifest(NAME, "large", manifest).status == 201
    target = tmp_path / "pulled"
    subprocess.run(
        [skopeo, "copy", "--src-tls-verify=false", f"docker://{address}/{NAME}:large", f"dir:{target}"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert (target / digest.removeprefix("sha256:")).read_bytes() == DATA
