"""The operator's commands against a fabric of two groups that runs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabric.cli.ports import free_ports_from
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


# --- what the master is asked -----------------------------------------------------------------------


class Spares:
    """Chunk servers beside those of ``fabric up``, by the lines that a command printed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, line: str) -> None:
        with (self._directory / f"spare-{len(self._processes)}.log").open("wb") as log:
            words = shlex.split(line)
            assert words[0] == "fabric"
            command = [sys.executable, "-m", *words, "--config", str(self._directory / "fabric.toml")]
            self._processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, cwd=self._directory, env=environment())
            )

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)


def environment() -> dict[str, str]:
    """Finds the same fabric from another directory."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(scope="module")
def spares(running: FabricUp) -> Iterator[Spares]:
    spares = Spares(running.data.parent)
    try:
        yield spares
    finally:
        spares.close()


def group_of(fabric: FabricUp, number: int) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in fabric.admin("groups") if each["group"] == number)
    return found


def texts(fabric: FabricUp) -> str:
    return "\n".join(f"{event['subject']}: {event['text']}" for event in fabric.admin("events"))


def test_a_group_is_added_by_the_lines_that_the_command_prints(running: FabricUp, spares: Spares) -> None:
    assert running.admin("group", "add", "--dry-run")["changed"] is True
    assert len(running.admin("groups")) == 2, "a dry run changes nothing"
    before = {number: group_of(running, number)["fragments"] for number in (1, 2)}

    added = running.admin("group", "add")
    number = added["group"]["group"]
    assert (added["changed"], number, len(added["commands"])) == (True, 3, 3)
    again = running.admin("group", "add")
    assert (again["changed"], again["group"]["group"]) == (False, 3)
    text = attempt(running, "group", "add").stdout.decode()
    lines = [line.strip() for line in text.splitlines() if line.startswith("  fabric chunk ")]
    assert len(lines) == 3
    for line in lines:
        spares.start(line)
    wait_until(lambda: group_of(running, 3)["state"] == "WRITABLE", "the new group", running.story)

    assert {number: group_of(running, number)["fragments"] for number in (1, 2)} == before, "nothing moved"
    names = fill(running, "grown", 40)
    wait_until(lambda: group_of(running, 3)["fragments"] > 0, "a fragment in the new group", running.story)
    check_contents(running, names)
    assert "group 3" in texts(running)


def test_a_group_is_drained_while_clients_go_on(running: FabricUp) -> None:
    with Storage(proxy=running.proxy) as storage:
        for number in range(13):
            storage.put_content(f"large/{number}", content_of(f"large/{number}", 4 * 2**20))
    plan = attempt(running, "group", "drain", "2", "--dry-run")
    assert b"this would be done" in plan.stdout
    assert group_of(running, 2)["draining"] is False
    with Load(running, "drained") as load:
        ended = running.admin("group", "drain", "2", "--max-mb-s", "60", "--wait")
    assert (ended["task"]["state"], load.errors) == ("done", [])
    assert len(load.names) > 5
    group = group_of(running, 2)
    assert (group["fragments"], group["live_bytes"], group["draining"]) == (0, 0, True)
    check_contents(running, load.names)
    with Storage(proxy=running.proxy) as storage:
        for number in range(13):
            assert storage.get_content(f"large/{number}") == content_of(f"large/{number}", 4 * 2**20)

    again = running.admin("group", "drain", "2", "--cancel")
    assert again["changed"] is True
    assert group_of(running, 2)["draining"] is False
    assert [task["state"] for task in running.admin("tasks", "--all") if task["kind"] == "drain-group"]
    assert "drain of group 2" in texts(running)


def test_groups_are_evened_out(running: FabricUp) -> None:
    before = group_of(running, 2)["live_bytes"]
    ended = running.admin("rebalance", "--max-mb-s", "100", "--wait")
    assert ended["task"]["state"] == "done"
    wait_until(
        lambda: group_of(running, 2)["live_bytes"] > before + 2**20, "bytes in the empty group", running.story
    )


def test_garbage_is_collected_and_replicas_compared_on_order(running: FabricUp) -> None:
    for arguments in (("gc", "run", "--wait"), ("repair", "--wait"), ("repair", "--group", "1", "--wait")):
        ended = running.admin(*arguments)
        assert (ended["task"]["state"], ended["task"]["done"]) == ("done", ended["task"]["total"])
    assert running.admin("gc", "status")["task"]["kind"] == "gc"


def test_a_server_is_replaced_by_a_spare_and_retired(running: FabricUp, spares: Spares) -> None:
    names = fill(running, "replaced", 20)
    group = next(number for number in (1, 3) if group_of(running, number)["fragments"])
    old = group_of(running, group)["members"][0]
    master = running.master.removeprefix("tcp://")
    (endpoint,) = free_ports_from("tcp://127.0.0.1:0", 1)
    address = endpoint.removeprefix("tcp://")
    line = f"fabric chunk --name spare --listen {address} --master {master} --data spare --group 0"

    # It may be ordered before the spare is there.
    plan = running.admin("node", "replace", old, "spare", "--dry-run")["plan"]
    assert any("retired" in step for step in plan)
    task = running.admin("node", "replace", old, "spare")["task"]
    assert task["state"] == "running"
    assert [found["task"] for found in running.admin("tasks")] == [task["task"]]
    spares.start(line)
    with Load(running, "meanwhile") as load:
        assert running.admin("task", "wait", str(task["task"]))["state"] == "done"
    assert load.errors == []
    members = group_of(running, group)["members"]
    assert "spare" in members and old not in members
    assert "retired" in running.admin("node", "show", old)["reason"]
    check_contents(running, names + load.names)


def test_a_task_is_cancelled_and_waiting_for_it_is_status_1(running: FabricUp) -> None:
    task = running.admin("node", "replace", "spare", "nobody")["task"]
    number = str(task["task"])
    running.admin("task", "cancel", number)
    result = attempt(running, "task", "wait", number)
    assert result.returncode == 1
    assert b"cancelled" in result.stdout
    assert "nobody" not in [node["server"] for node in running.admin("nodes")]


def test_waiting_survives_a_master_that_is_killed(running: FabricUp) -> None:
    task = running.admin("node", "replace", "spare", "nobody")["task"]
    number = str(task["task"])
    command = [sys.executable, "-m", "fabric", "admin", "--master", running.master, "task", "wait", number]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        pid = running.kill("master")
        running.wait_restarted("master", pid)
        wait_until(
            lambda: attempt(running, "task", "cancel", number).returncode == 0, "the master", running.story
        )
        out, _ = waiting.communicate(timeout=60)
        assert (waiting.returncode, b"cancelled" in out) == (1, True)
    finally:
        if waiting.poll() is None:
            waiting.kill()
            waiting.communicate()
    running.wait_writable()


def test_orders_that_cannot_be_are_refused_with_the_reason(running: FabricUp) -> None:
    for arguments, reason in (
        (("group", "drain", "99"), b"no group 99"),
        (("group", "accept-loss", "1", "--yes"), b"has not lost"),
        (("node", "replace", "nobody", "chunk-1"), b"'nobody'"),
        (("task", "cancel", "9999"), b"no task 9999"),
    ):
        result = attempt(running, *arguments)
        assert (result.returncode, reason in result.stderr) == (1, True), result.stderr


def test_a_group_whose_directories_are_all_gone_waits_for_the_operators_word(running: FabricUp) -> None:
    """The last one here: it loses objects."""
    names = fill(running, "lost", 60)
    places = {
        name: {group["group"] for group in running.admin("route", name)["groups"]} for name in names[-12:]
    }
    roles = [role for role in running.run_json["roles"] if role["name"] in SERVERS[3:]]
    for role in roles:
        os.kill(role["pid"], signal.SIGSTOP)
    for role in roles:
        shutil.rmtree(role["data"])
        os.kill(role["pid"], signal.SIGKILL)
    wait_until(
        lambda: "new data directory" in group_of(running, 2)["reason"], "the empty group", running.story
    )
    assert group_of(running, 2)["state"] == "SEALED"
    refused = attempt(running, "group", "accept-loss", "2")
    assert (refused.returncode, group_of(running, 2)["state"]) == (1, "SEALED"), "nobody said yes"

    assert running.admin("group", "accept-loss", "2", "--yes")["task"]["state"] == "done"
    wait_until(lambda: group_of(running, 2)["state"] == "WRITABLE", "the group, empty", running.story)
    assert group_of(running, 2)["fragments"] == 0
    lost = [name for name, groups in places.items() if 2 in groups]
    check_contents(running, [name for name in places if name not in lost])
    for name in lost[:2]:
        result = running.fabric("get", name, "-", "--proxy", running.proxy)
        assert (result.returncode, b"no replica gave a good copy" in result.stderr) == (1, True)
    check_contents(running, fill(running, "anew", 6))
