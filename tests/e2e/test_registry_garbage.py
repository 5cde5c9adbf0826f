"""Garbage collection in a tight loop, on two registries, while 16 clients push and pull.

Their images share layers within and across repositories; tags are moved and deleted, and nothing can be
undone, so that bytes go as early as they ever may.  No client may miss anything, and in the end all
space is back.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fabric.cli.ports import free_ports_from
from fabric.driver import Storage
from tests.e2e.conftest import FabricUp, wait_until
from tests.e2e.http_registry import MANIFEST_TYPE, HttpRegistry, digest_of

GRACE_S = 4.0
CONFIG = f"""
[settings]
gc_interval_s = 0.05
gc_pause_s = 0.0
gc_grace_s = {GRACE_S}
gc_untagged_after_s = 0.0
undelete_s = 0.0
delete_grace_s = 1.0
data_file_bytes_max = 8388608
compaction_bytes_per_s = 1000000000
registry_uploads_max = 256
upload_expiry_s = 15.0
"""
LOAD_S = float(os.environ.get("FABRIC_GARBAGE_S", "20"))
CLIENTS = 16
REPOSITORIES = ("base", "team/app", "team/app/sub", "other")
LAYERS = [random.Random(number).randbytes(1000 * (1 + number * number * 4)) for number in range(10)]
FREED_S_MAX = 120.0
"""For a loaded machine; about 20 s are due to the times above."""


class Client:
    """Pushes, pulls and deletes images under tags of its own, and knows what each of them must be."""

    def __init__(self, number: int, urls: list[str]) -> None:
        self.number = number
        self._rng = random.Random(number)
        self._registries = [HttpRegistry(url) for url in urls]
        self.tags: dict[tuple[str, str], tuple[str, list[str]]] = {}
        """(repository, tag) -> digests of the manifest and of its blobs."""
        self.pushes = 0
        self.too_slow = 0
        """Pushes that took longer than the grace time, and were told so."""

    @property
    def registry(self) -> HttpRegistry:
        return self._rng.choice(self._registries)

    def work(self) -> None:
        """One thing that clients do."""
        choice = self._rng.random()
        if choice < 0.55 or not self.tags:
            self._push()
        elif choice < 0.8:
            self.pull(self._rng.choice(list(self.tags)))
        else:
            self._delete(self._rng.choice(list(self.tags)))

    def _push(self) -> None:
        name, tag = self._rng.choice(REPOSITORIES), f"c{self.number}-{self._rng.randint(1, 3)}"
        began = time.monotonic()
        config = json.dumps({"client": self.number, "push": self.pushes // 3}).encode()
        contents = [config, *self._rng.sample(LAYERS, self._rng.randint(1, 3))]
        for data in contents:
            self._provide(name, data)
        manifest = self._manifest(contents)
        answer = self.registry.put_manifest(name, tag, manifest)
        if answer.status == 404 and time.monotonic() - began > GRACE_S:
            self.too_slow += 1
            return
        assert answer.status == 201, f"a push of {name}:{tag}: {answer}"
        self.pushes += 1
        digests = [digest_of(data) for data in contents]
        self.tags[name, tag] = (answer.headers["docker-content-digest"], digests)
        self.pull((name, tag))

    def _provide(self, name: str, data: bytes) -> None:
        digest = digest_of(data)
        if self.registry.ask("HEAD", f"/v2/{name}/blobs/{digest}").status == 200:
            return
        if self._rng.random() < 0.4:
            source = self._rng.choice(REPOSITORIES)
            query = f"mount={digest}&from={source}"
            if self.registry.ask("POST", f"/v2/{name}/blobs/uploads/?{query}", b"").status == 201:
                return
        answer = self.registry.put_blob(name, data)
        assert answer.status == 201, f"an upload to {name}: {answer}"

    def _manifest(self, contents: list[bytes]) -> dict[str, Any]:
        described = [
            {"mediaType": "application/octet-stream", "digest": digest_of(data), "size": len(data)}
            for data in contents
        ]
        note = {"client": str(self.number)}
        return {
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": described[0], "layers": described[1:], "annotations": note,
        }  # fmt: skip

    def pull(self, image: tuple[str, str]) -> None:
        """Every byte of an image of ours."""
        name, tag = image
        digest, blobs = self.tags[image]
        answer = self.registry.get_manifest(name, tag)
        assert answer.status == 200, f"{name}:{tag} is missing: {answer}"
        assert answer.headers["docker-content-digest"] == digest == digest_of(answer.body)
        for blob in blobs:
            answer = self.registry.get_blob(name, blob)
            assert answer.status == 200, f"{blob} of {name}:{tag} is missing: {answer}"
            assert digest_of(answer.body) == blob

    def _delete(self, image: tuple[str, str]) -> None:
        """The tag alone, or the manifest with all tags that name it."""
        name, tag = image
        digest = self.tags[image][0]
        if self._rng.random() < 0.5:
            answer = self.registry.ask("DELETE", f"/v2/{name}/manifests/{tag}")
            del self.tags[image]
        else:
            answer = self.registry.ask("DELETE", f"/v2/{name}/manifests/{digest}")
            for other in [key for key, value in self.tags.items() if key[0] == name and value[0] == digest]:
                del self.tags[other]
        assert answer.status == 202, f"a deletion in {name}: {answer}"

    def delete_all(self) -> None:
        while self.tags:
            self._delete(next(iter(self.tags)))


@contextmanager
def second_registry(fabric: FabricUp, config: Path) -> Iterator[str]:
    """Another registry process over the same fabric; its URL."""
    endpoint = free_ports_from("tcp://127.0.0.1:0", 1, set())[0].removeprefix("tcp://")
    command = [sys.executable, "-m", "fabric", "registry", "--http", endpoint]
    process = subprocess.Popen([*command, "--proxy", fabric.proxy, "--config", str(config)])
    try:
        url = f"http://{endpoint}"
        wait_until(lambda: _answers(url), "the second registry", fabric.story)
        yield url
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return HttpRegistry(url).ask("GET", "/v2/").status == 200
    except OSError:
        return False


class Load:
    """All clients at once, each on a thread, until they are stopped or one of them misses something."""

    def __init__(self, urls: list[str]) -> None:
        self.clients = [Client(number, urls) for number in range(CLIENTS)]
        self.errors: list[str] = []
        self._until = time.monotonic() + LOAD_S

    def run(self, watch: Any) -> None:
        threads = [threading.Thread(target=self._loop, args=(client,)) for client in self.clients]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            watch()
            threads[0].join(0.2)
        for thread in threads:
            thread.join()

    def _loop(self, client: Client) -> None:
        try:
            while time.monotonic() < self._until and not self.errors:
                client.work()
        except (AssertionError, OSError, ValueError) as error:
            self.errors.append(f"client {client.number}: {error}")


def details(fabric: FabricUp) -> list[dict[str, Any]]:
    """Of all chunk servers."""
    servers = [role["name"] for role in fabric.run_json["roles"] if role["role"] == "chunk"]
    return [fabric.admin("details", server) for server in servers]


def data_bytes(fabric: FabricUp) -> int:
    """Of all records on all servers, dead ones and what remembers deletions included."""
    return sum(entry["data_bytes"] for entry in details(fabric))


@pytest.mark.timeout(360 + 2 * LOAD_S)
def test_nothing_is_missed_while_garbage_is_collected_all_the_time(start: Any, tmp_path: Path) -> None:
    config = tmp_path / "fabric.toml"
    config.write_text(CONFIG)
    fabric: FabricUp = start("--config", str(config)).wait_ready()
    passes: dict[int, int] = {}

    with second_registry(fabric, config) as other, Storage(proxy=fabric.proxy) as storage:
        load = Load([fabric.registry, other])

        def watch() -> None:
            if storage.exists("meta/registry-gc"):
                report = json.loads(storage.stat("meta/registry-gc").attributes["report"])
                assert report["problems"] == []
                passes[report["started_at_ms"]] = report["freed"]

        load.run(watch)
        assert load.errors == [], fabric.story()
        for client in load.clients:
            for image in client.tags:
                client.pull(image)
        pushes = sum(client.pushes for client in load.clients)
        print(
            f"{pushes} pushes, {sum(client.too_slow for client in load.clients)} slower than the grace time,"
            f" {len(passes)} passes seen that freed {sum(passes.values())}"
        )
        assert pushes > CLIENTS and sum(passes.values()) > 0
        before = data_bytes(fabric)

        for client in load.clients:
            client.delete_all()
        wait_until(lambda: paths_left(storage) == [], "all to be collected", fabric.story, FREED_S_MAX)
    wait_until(lambda: _has_no_fragments(fabric), "the fragments to go", fabric.story, FREED_S_MAX)
    fabric.admin("compact", "--wait")
    assert [entry["garbage_bytes"] for entry in details(fabric)] == [0, 0, 0]
    assert data_bytes(fabric) < before, "what is left remembers deletions, for a time"


def _has_no_fragments(fabric: FabricUp) -> bool:
    return all(entry["fragments"] == 0 for entry in details(fabric))


def paths_left(storage: Storage) -> list[str]:
    """What is in the catalog but for notes about collection itself."""
    page = storage.list_page("", "", "", 1000).objects
    return [info.path for info in page if not info.path.startswith("meta/")]


def test_a_deleted_image_comes_back_by_command(shared_fabric: FabricUp) -> None:
    registry = HttpRegistry(shared_fabric.registry)
    client = Client(1, [shared_fabric.registry])
    while not client.tags:
        client.work()
    (name, tag), (digest, _) = next(iter(client.tags.items()))
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert registry.get_manifest(name, tag).status == 404

    def command(*arguments: str) -> str:
        result = shared_fabric.fabric("registry", *arguments, "--proxy", shared_fabric.proxy)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout.decode()

    assert digest in command("trash", name)
    command("gc", "run")
    assert "in the trash" in command("gc", "why", digest)
    assert f"{name}:{tag} is {digest}" in command("restore", f"{name}@{digest}")
    client.pull((name, tag))
    changes = [each["what"] for each in json.loads(command("history", f"{name}:{tag}", "--json"))]
    assert changes[-2:] == ["deleted", "restored"]
