"""Quotas with a real client and real processes: refusals, room that comes back, exact through kills."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

from fabric.driver import Storage
from tests.e2e.conftest import FabricUp, needs, wait_until
from tests.e2e.http_registry import HttpRegistry
from tests.e2e.oci_image import Layout

CONFIG = """
[settings]
gc_interval_s = 0
gc_grace_s = 0
gc_pause_s = 0
undelete_s = 0
"""
QUOTA = '[[quota]]\nrepositories = "team/**"\nbytes = "500 kB"\n'
KILLS = 3
PUSHERS = 6
PUSHES_BETWEEN_KILLS = 25


def start_with_quota(start: Callable[..., FabricUp], directory: Path, quota: str) -> FabricUp:
    config, access = directory / "fabric.toml", directory / "access.toml"
    config.write_text(CONFIG)
    access.write_text(quota)
    return start("--config", str(config), "--access", str(access)).wait_ready()


def quota(fabric: FabricUp) -> dict[str, Any]:
    """The only account, by the command."""
    result = fabric.fabric("registry", "quota", "--json", "--repositories", "--proxy", fabric.proxy)
    assert result.returncode == 0, result.stderr.decode()
    (account,) = json.loads(result.stdout)
    return dict(account)


def skopeo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([needs("skopeo"), *arguments], capture_output=True, text=True, timeout=120)


def test_skopeo_is_told_why_and_has_room_after_a_deletion(
    start: Callable[..., FabricUp], tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "there")
    layout.add_image("one", [200_000, 50_000], seed=1)
    layout.add_image("two", [300_000], seed=2)
    fabric = start_with_quota(start, tmp_path, QUOTA)
    address = fabric.registry.removeprefix("http://")

    def push(tag: str, name: str) -> subprocess.CompletedProcess[str]:
        target = f"docker://{address}/{name}:{tag}"
        return skopeo("copy", "--dest-tls-verify=false", f"oci:{layout.directory}:{tag}", target)

    assert push("one", "team/app").returncode == 0
    before = quota(fabric)
    assert before["account"] == "team/**" and not before["counting"]
    assert 250_000 < before["used_bytes"] < 260_000
    # The same image once more in the account costs nothing.
    assert push("one", "team/tool").returncode == 0
    assert quota(fabric)["used_bytes"] == before["used_bytes"]

    refused = push("two", "team/app")
    assert refused.returncode != 0
    assert "the quota of team/** is 500000 bytes" in refused.stderr
    assert "delete images" in refused.stderr
    assert push("two", "other").returncode == 0
    assert quota(fabric)["used_bytes"] <= 500_000

    for name in ("team/app", "team/tool"):
        deleted = skopeo("delete", "--tls-verify=false", f"docker://{address}/{name}:one")
        assert deleted.returncode == 0, deleted.stderr
    assert quota(fabric)["used_bytes"] >= before["used_bytes"], "what is in the trash counts"
    config = str(tmp_path / "fabric.toml")
    for _ in range(3):
        result = fabric.fabric("registry", "gc", "run", "--config", config, "--proxy", fabric.proxy)
        assert result.returncode == 0, result.stderr.decode()
    assert quota(fabric)["used_bytes"] == 0
    assert push("two", "team/app").returncode == 0
    account = quota(fabric)
    assert account["used_bytes"] == account["shared_bytes"] > 300_000, "other has the same image"


class Pusher:
    """Pushes images that share layers, and deletes some, on a registry that dies now and then."""

    def __init__(self, number: int, fabric: FabricUp, stop: threading.Event) -> None:
        self._rng = random.Random(number)
        self._fabric = fabric
        self._stop = stop
        self.pushed = 0

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                self._once()
            except (AssertionError, OSError, HTTPException):
                time.sleep(0.02)  # the registry is dead, or what it did not acknowledge is pushed anew

    def _once(self) -> None:
        registry = HttpRegistry(self._fabric.registry)
        name = f"team/app{self._rng.randint(1, 3)}"
        layers = [bytes([self._rng.randint(0, 40)]) * 5000 for _ in range(3)]
        digest, _ = registry.push_image(name, f"t{self._rng.randint(1, 5)}", layers)
        self.pushed += 1
        if self._rng.random() < 0.4:
            registry.ask("DELETE", f"/v2/{name}/manifests/{digest}")


def test_an_account_is_exact_after_registries_were_killed_in_the_middle(
    start: Callable[..., FabricUp], tmp_path: Path
) -> None:
    fabric = start_with_quota(start, tmp_path, QUOTA.replace("500 kB", "1 GB"))
    stop = threading.Event()
    pushers = [Pusher(number, fabric, stop) for number in range(PUSHERS)]
    threads = [threading.Thread(target=pusher.run) for pusher in pushers]
    for thread in threads:
        thread.start()
    try:
        for number in range(KILLS):
            enough = (number + 1) * PUSHES_BETWEEN_KILLS
            wait_until(lambda enough=enough: pushed(pushers) >= enough, "pushes", fabric.story)  # type: ignore[misc]
            fabric.wait_restarted("registry", fabric.kill("registry", signal.SIGKILL))
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)

    account = quota(fabric)
    with Storage(proxy=fabric.proxy) as storage:
        owned = [path.rsplit("/", 1)[1] for path in storage.list_directory("owners/sha256")]
        sizes = [storage.get_size(f"blobs/sha256/{digest[:2]}/{digest}") for digest in owned]
    assert (account["used_bytes"], account["objects"]) == (sum(sizes), len(sizes))
    assert account["used_bytes"] == account["unique_bytes"] + account["shared_bytes"] > 0
    assert len(account["repositories"]) == 3


def pushed(pushers: list[Pusher]) -> int:
    return sum(pusher.pushed for pusher in pushers)
