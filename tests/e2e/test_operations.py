"""The operator's commands against a fabric of two groups that runs."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabric.driver import Storage
from tests.e2e.conftest import FabricUp, wait_until

CONFIG = """
[settings]
delete_grace_s = 0.5
scrub_bytes_per_s = 1000000000
compaction_bytes_per_s = 1000000000
"""
OBJECT_BYTES = 256 * 1024
SERVERS = [f"chunk-{number}" for number in range(1, 7)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FabricUp]:
    """Two groups of three, for all tests of this file."""
    directory = tmp_path_factory.mktemp("operations")
    config = directory / "fabric.toml"
    config.write_text(CONFIG)
    fabric = FabricUp(directory / "data", "--groups", "2", "--config", str(config))
    try:
        yield fabric.wait_ready()
    finally:
        fabric.stop()


def content_of(name: str, size: int = OBJECT_BYTES) -> bytes:
    return random.Random(name).randbytes(size)


def fill(fabric: FabricUp, prefix: str, count: int) -> list[str]:
    names = [f"{prefix}/{number}" for number in range(count)]
    with Storage(proxy=fabric.proxy) as storage:
        for name in names:
            storage.put_content(name, content_of(name))
    return names


def check_contents(fabric: FabricUp, names: list[str]) -> None:
    with Storage(proxy=fabric.proxy) as storage:
        for name in names:
            assert storage.get_content(name) == content_of(name), name


def attempt(fabric: FabricUp, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return fabric.fabric("admin", "--master", fabric.master, *arguments)


class Load:
    """Puts objects and reads them back, all the time, and remembers what went wrong."""

    def __init__(self, fabric: FabricUp, prefix: str) -> None:
        self._proxy = fabric.proxy
        self._prefix = prefix
        self._stop = threading.Event()
        self.names: list[str] = []
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        rng = random.Random(7)
        with Storage(proxy=self._proxy) as storage:
            while not self._stop.is_set():
                name = f"{self._prefix}/{len(self.names)}"
                try:
                    storage.put_content(name, content_of(name))
                    self.names.append(name)
                    old = rng.choice(self.names)
                    if storage.get_content(old) != content_of(old):
                        self.errors.append(f"{old} has other bytes")
                except Exception as error:  # noqa: BLE001  whatever a client sees is what is counted here
                    self.errors.append(f"{name}: {error!r}")


# --- what chunk servers are asked -------------------------------------------------------------------


def test_reads_and_writes_are_counted_on_every_replica(running: FabricUp) -> None:
    def total(name: str) -> int:
        return sum(entry[name] for entry in running.admin("io-status"))

    before = {name: total(name) for name in ("reads", "read_bytes", "writes", "written_bytes")}
    names = fill(running, "counted", 12)
    assert total("writes") - before["writes"] == 3 * len(names)
    assert total("written_bytes") - before["written_bytes"] == 3 * len(names) * OBJECT_BYTES
    check_contents(running, names)
    assert total("reads") - before["reads"] >= len(names)
    assert total("read_bytes") - before["read_bytes"] >= len(names) * OBJECT_BYTES
    assert [entry["server"] for entry in running.admin("io-status")] == SERVERS
    assert total("pending_writes") == 0


def test_every_disk_is_tried(running: FabricUp) -> None:
    found = running.admin("check-disk")
    assert [entry["server"] for entry in found] == SERVERS
    for entry in found:
        disk = entry["disk"]
        assert (disk["problem"], disk["running"], disk["bytes"]) == ("", False, 2**20)
        assert min(disk["write_us"], disk["sync_us"], disk["read_us"]) > 0
        assert entry["read_only_reason"] == ""
    for role in running.run_json["roles"]:
        if role["role"] == "chunk":
            assert not (Path(role["data"]) / "fragments" / "disk-check").exists()


def test_all_servers_scrub_and_compact(running: FabricUp) -> None:
    kept, gone = fill(running, "kept", 6), fill(running, "gone", 18)
    wait_until(
        lambda: all(entry["scrub"]["passes"] >= 1 for entry in running.admin("scrub", "status")),
        "the pass that a new server begins with",
        running.story,
    )
    before = {entry["server"]: entry["scrub"]["passes"] for entry in running.admin("scrub", "status")}
    for entry in running.admin("scrub", "start", "--wait"):
        assert entry["scrub"]["passes"] == before[entry["server"]] + 1
        assert (entry["scrub"]["damaged"], entry["quarantined"]) == (0, 0)

    assert running.fabric("rm", "-r", "gone", "--proxy", running.proxy).returncode == 0
    wait_until(
        lambda: (
            sum(entry["garbage_bytes"] for entry in running.admin("nodes")) >= 3 * len(gone) * OBJECT_BYTES
        ),
        "the deletions to arrive",
        running.story,
    )
    for entry in running.admin("compact", "--wait"):
        assert (entry["garbage_bytes"], entry["compaction"]["problem"]) == (0, "")
    check_contents(running, kept)


def test_ending_waiting_writes_costs_no_client_anything(running: FabricUp) -> None:
    before = {entry["server"]: entry["writes"] for entry in running.admin("io-status")}
    ended: list[int] = []

    def end_some() -> bool:
        found = running.admin("kill-pending", *SERVERS[:3], "--yes")
        ended.append(sum(entry["killed"] for entry in found))
        return sum(ended) > 0

    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(Load(running, f"ended-{number}")) for number in range(8)]
        wait_until(end_some, "a write that waits", running.story)
        for _ in range(4):
            end_some()
    assert [load.errors for load in loads] == [[]] * len(loads)
    names = [name for load in loads for name in load.names]
    check_contents(running, names[-10:])
    after = {entry["server"]: entry["writes"] for entry in running.admin("io-status")}
    assert sum(after.values()) - sum(before.values()) >= 3 * len(names)
    running.wait_writable()


def test_a_server_that_hangs_is_a_row_and_status_1_in_time(running: FabricUp) -> None:
    running.kill("chunk-6", signal.SIGSTOP)
    try:
        before = time.monotonic()
        result = attempt(running, "io-status", "--json")
        assert time.monotonic() - before < 6, "with the start of the command itself"
        found: list[dict[str, Any]] = json.loads(result.stdout)
        assert result.returncode == 1
        assert [bool(entry["error"]) for entry in found] == [False] * 5 + [True]
        assert "no answer" in found[5]["error"]
        table = attempt(running, "scrub", "status")
        assert (table.returncode, b"no answer" in table.stdout) == (1, True)
    finally:
        running.kill("chunk-6", signal.SIGCONT)
    running.wait_writable()
    assert attempt(running, "io-status").returncode == 0


def test_the_tree_shows_every_server_under_its_group(running: FabricUp) -> None:
    tree = running.admin("topology")
    members = [[node["server"] for node in group["members"]] for group in tree["groups"]]
    assert sorted(map(sorted, members)) == [SERVERS[:3], SERVERS[3:]]
    text = attempt(running, "topology").stdout.decode()
    assert all(name in text for name in SERVERS)
    assert running.admin("details", "chunk-2")["server"] == "chunk-2"
    assert [node["server"] for node in running.admin("group", "show", "1")["nodes"]] == SERVERS[:3]
