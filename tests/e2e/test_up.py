"""``fabric up``: ready, described, restarted, stopped, refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import FabricUp, is_alive, wait_until

Start = Callable[..., FabricUp]
ROLES = ["master", "chunk-1", "chunk-2", "chunk-3", "proxy", "registry"]


def put(fabric: FabricUp, path: str, content: bytes) -> None:
    result = fabric.fabric("put", path, "-", "--proxy", fabric.proxy, stdin=content)
    assert result.returncode == 0, f"{result.stderr.decode()}\n{fabric.story()}"


def get(fabric: FabricUp, path: str) -> bytes:
    result = fabric.fabric("get", path, "-", "--proxy", fabric.proxy)
    assert result.returncode == 0, f"{result.stderr.decode()}\n{fabric.story()}"
    return result.stdout


def test_a_push_succeeds_as_soon_as_it_says_ready(
    start: Start, record_property: Callable[[str, object], None]
) -> None:
    fabric = start().wait_ready()
    put(fabric, "first", b"bytes")

    record_property("ready_s", round(fabric.ready_s, 2))
    assert get(fabric, "first") == b"bytes"
    with urllib.request.urlopen(f"{fabric.registry}/v2/", timeout=10) as answer:
        assert answer.status == 200
    assert fabric.registry in fabric.ready_line
    assert fabric.proxy in fabric.ready_line
    assert fabric.master in fabric.ready_line
    assert fabric.stop() == 0


def test_run_json_describes_what_runs(start: Start) -> None:
    fabric = start("--replicas", "2", "--groups", "2").wait_ready()
    run = fabric.run_json

    assert set(run) == {"registry", "proxy", "master", "roles"}
    assert [role["name"] for role in run["roles"]] == [
        "master", "chunk-1", "chunk-2", "chunk-3", "chunk-4", "proxy", "registry",
    ]  # fmt: skip
    for role in run["roles"]:
        assert set(role) == {"role", "name", "pid", "endpoint", "group", "data"}
        command = Path(f"/proc/{role['pid']}/cmdline").read_bytes().split(b"\0")
        assert command[1:4] == [b"-m", b"fabric", role["role"].encode()]
    chunks = [role for role in run["roles"] if role["role"] == "chunk"]
    assert [chunk["group"] for chunk in chunks] == [1, 1, 2, 2]
    assert [chunk["data"] for chunk in chunks] == [str(fabric.data / f"chunk-{n}") for n in (1, 2, 3, 4)]
    nodes = {node["server"]: node for node in fabric.admin("nodes")}
    assert {name: node["state"] for name, node in nodes.items()} == dict.fromkeys(
        ("chunk-1", "chunk-2", "chunk-3", "chunk-4"), "RW"
    )
    assert [nodes[chunk["name"]]["endpoint"] for chunk in chunks] == [chunk["endpoint"] for chunk in chunks]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_with_status_0(fabric_up: FabricUp, number: signal.Signals) -> None:
    pids = fabric_up.pids()

    assert fabric_up.stop(number) == 0
    assert not any(is_alive(pid) for pid in pids.values())
    assert not (fabric_up.data / "run.json").exists()


def test_a_signal_during_the_start_stops_everything_too(start: Start) -> None:
    fabric = start()
    wait_until((fabric.data / "run.json").exists, "the first processes", fabric.story)
    pids = fabric.pids()

    assert fabric.stop() == 0, fabric.story()
    assert not any(is_alive(pid) for pid in pids.values())


def test_what_was_stored_is_there_after_a_stop_and_a_start(start: Start) -> None:
    first = start().wait_ready()
    put(first, "kept", b"x" * 5_000_000)
    endpoints = [role["endpoint"] for role in first.run_json["roles"] if role["role"] == "chunk"]
    assert first.stop() == 0

    second = start().wait_ready()

    assert get(second, "kept") == b"x" * 5_000_000
    assert [role["endpoint"] for role in second.run_json["roles"] if role["role"] == "chunk"] == endpoints


@pytest.mark.parametrize("name", ["master", "chunk-2", "proxy", "registry"])
def test_a_killed_role_is_restarted_and_pushes_succeed_again(fabric_up: FabricUp, name: str) -> None:
    put(fabric_up, "before", b"1")
    others = {other: pid for other, pid in fabric_up.pids().items() if other != name}

    new = fabric_up.wait_restarted(name, fabric_up.kill(name))

    assert is_alive(new)
    assert {other: pid for other, pid in fabric_up.pids().items() if other != name} == others
    fabric_up.wait_writable()
    put(fabric_up, "after", b"2")
    assert get(fabric_up, "before") == b"1"
    wait_until(lambda: answers(fabric_up.registry), "the registry", fabric_up.story)
    assert f"{name} was killed by SIGKILL; started again" in fabric_up.errors.read_text()


def test_children_die_with_a_supervisor_that_is_killed(fabric_up: FabricUp) -> None:
    pids = fabric_up.pids()
    fabric_up.process.kill()
    fabric_up.process.wait()

    wait_until(lambda: not any(is_alive(pid) for pid in pids.values()), "the children to die")


def test_a_second_start_on_the_same_directory_is_refused(fabric_up: FabricUp, start: Start) -> None:
    second = start()

    assert second.process.wait(60) == 1
    assert f"another `fabric up` is running on {fabric_up.data}" in second.errors.read_text()
    assert all(is_alive(pid) for pid in fabric_up.pids().values())


def test_a_taken_port_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        fabric = start("--http", f"127.0.0.1:{port}")

        assert fabric.process.wait(60) == 1
    assert f"127.0.0.1:{port} (the registry)" in fabric.errors.read_text()


def test_a_directory_of_other_replicas_is_refused_and_more_groups_are_welcome(start: Start) -> None:
    first = start("--replicas", "1").wait_ready()
    put(first, "kept", b"1")
    assert first.stop() == 0

    other = start("--replicas", "2")
    assert other.process.wait(60) == 1
    assert "made with --replicas 1, not 2" in other.errors.read_text()

    wider = start("--groups", "2").wait_ready()
    assert [group["members"] for group in wider.admin("groups")] == [["chunk-1"], ["chunk-2"]]
    assert get(wider, "kept") == b"1"


def test_the_data_directory_of_another_server_is_refused_with_the_reason(start: Start) -> None:
    first = start().wait_ready()
    assert first.stop() == 0
    one, two, spare = (first.data / name for name in ("chunk-1", "chunk-2", "spare"))
    os.rename(one, spare)
    os.rename(two, one)
    os.rename(spare, two)

    second = start()

    assert second.process.wait(60) == 1
    told = second.errors.read_text()
    assert "belongs to chunk-" in told
    assert "giving up" in told


def test_a_directory_of_something_else_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    fabric = start(data=tmp_path / "home")

    assert fabric.process.wait(60) == 1
    assert "not a data directory" in fabric.errors.read_text()


def test_settings_reach_the_roles_and_mistakes_in_them_are_told_once(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "fabric.toml"
    config.write_text("[settings]\nlease_s = 2.5\n")
    fabric = start("--replicas", "1", "--config", str(config)).wait_ready()
    assert fabric.stop() == 0

    for number, (text, told) in enumerate(
        {"[settings]\nleese_s = 2.5\n": "leese_s", "lease_s = 2.5\n": "[settings]"}.items()
    ):
        config.write_text(text)
        mistaken = start("--config", str(config), data=tmp_path / f"other-{number}")
        assert mistaken.process.wait(60) == 1
        assert told in mistaken.errors.read_text()


def test_registries_share_a_port_and_stand_in_for_one_another(start: Start) -> None:
    fabric = start("--replicas", "1", "--registries", "2").wait_ready()
    names = [role["name"] for role in fabric.run_json["roles"] if role["role"] == "registry"]
    assert names == ["registry", "registry-2"]

    def sockets(name: str) -> int:
        shown = Path(f"/proc/{fabric.pid(name)}/fd").iterdir()
        return sum(os.path.lexists(path) and os.readlink(path).startswith("socket:") for path in shown)

    before = {name: sockets(name) for name in names}
    port = urllib.parse.urlsplit(fabric.registry).port
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        # The system divides them by chance: 40 of 40 at one would come about once in 2 ** 39 times.
        wait_until(
            lambda: all(sockets(name) > before[name] for name in names), "both to take some", fabric.story
        )
    for name in names:
        fabric.kill(name)
        wait_until(lambda: all(answers(fabric.registry) for _ in range(8)), "a registry", fabric.story)
    assert fabric.stop() == 0


def answers(registry: str) -> bool:
    try:
        with urllib.request.urlopen(f"{registry}/v2/", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_description_is_json_at_every_moment(fabric_up: FabricUp) -> None:
    """It is replaced whole, so that a reader never sees half of it."""
    for _ in range(3):
        old = fabric_up.kill("proxy")
        while True:
            run = json.loads((fabric_up.data / "run.json").read_text())
            assert [role["name"] for role in run["roles"]] == ROLES
            if fabric_up.pid("proxy") not in (0, old):
                break
