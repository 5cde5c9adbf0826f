"""``fabric admin`` against a master that answers from a script."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
from click.testing import CliRunner, Result

from fabric.cli import admin_common
from fabric.cli.root import fabric
from fabric.errors import Refused, Unavailable
from fabric.node import ask as ask_module
from fabric.wire.messages import (
    ClusterStatus,
    GetStatus,
    GroupStatus,
    Message,
    NodeStatus,
    Request,
    ServerStatusSet,
    SetServerStatus,
)


def node(name: str, state: str, reason: str) -> NodeStatus:
    endpoint = "tcp://127.0.0.1:7410"
    return NodeStatus(name, "u", endpoint, 1, 3, state, reason, "rw", 10, 2048, 2**30, 2**31, 0, 61_000, 5)


CLUSTER = ClusterStatus(
    2, 3_723_000, "0.1.0", 200_000, 4,
    [node("chunk-1", "RW", ""), node("chunk-2", "OFFLINE", "no heartbeat for 4 s")],
    [GroupStatus(1, 3, "SEALED", "chunk-2 is OFFLINE", 2, ["chunk-1", "chunk-2"], 2**30, 2048, 10)],
)  # fmt: skip


class Master:
    """Records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Request]] = []
        self.answer: Callable[[Request], Message] = lambda message: CLUSTER

    def ask(self, endpoint: str, message: Request, timeout_s: float) -> Message:
        assert timeout_s < 5
        self.asked.append((endpoint, message))
        return self.answer(message)


@pytest.fixture
def master(monkeypatch: pytest.MonkeyPatch) -> Iterator[Master]:
    master = Master()
    monkeypatch.setattr(ask_module, "ask", master.ask)
    yield master


def run(*arguments: str) -> Result:
    return CliRunner().invoke(fabric, ["admin", *arguments])


def test_status_shows_groups_and_servers_with_their_reasons(master: Master) -> None:
    result = run("status")

    assert result.exit_code == 0
    for text in (
        "term 2",
        "1h 2m",
        "SEALED",
        "chunk-2 is OFFLINE",
        "no heartbeat for 4 s",
        "2.0 KiB",
        "1m 1s",
    ):
        assert text in result.output
    assert master.asked == [("tcp://127.0.0.1:7400", GetStatus(0))]


def test_status_as_json_has_the_fields_by_name(master: Master) -> None:
    shown = json.loads(run("status", "--json").output)

    assert shown["term"] == 2
    assert shown["nodes"][1]["server"] == "chunk-2"
    assert shown["nodes"][1]["state"] == "OFFLINE"
    assert shown["groups"][0]["members"] == ["chunk-1", "chunk-2"]


def test_nodes_and_groups_as_json_are_lists(master: Master) -> None:
    assert [entry["server"] for entry in json.loads(run("nodes", "--json").output)] == ["chunk-1", "chunk-2"]
    assert [entry["group"] for entry in json.loads(run("groups", "--json").output)] == [1]


def test_nodes_and_groups_as_tables(master: Master) -> None:
    nodes, groups = run("nodes").output, run("groups").output

    assert "chunk-2" in nodes
    assert "Groups" not in nodes
    assert "SEALED" in groups
    assert "Chunk servers" not in groups


def test_one_server_in_full(master: Master) -> None:
    assert "no heartbeat for 4 s" in run("node", "show", "chunk-2").output
    assert json.loads(run("node", "show", "chunk-2", "--json").output)["pending_deletes"] == 5


def test_damage_has_a_column_while_there_is_some(master: Master) -> None:
    assert "damaged" not in run("nodes").output
    damaged = msgspec.structs.replace(CLUSTER.nodes[1], quarantined=12345, garbage_bytes=3 * 2**20)
    master.answer = lambda message: msgspec.structs.replace(CLUSTER, nodes=[CLUSTER.nodes[0], damaged])
    for command in ("nodes", "status"):
        lines = run(command).output.splitlines()
        assert any(line.split()[-1:] == ["damaged"] for line in lines)
        assert [line.split()[-1] for line in lines if "chunk-" in line][-2:] == ["0", "12345"]
    shown = json.loads(run("nodes", "--json").output)[1]
    assert (shown["quarantined"], shown["garbage_bytes"]) == (12345, 3 * 2**20)
    assert "3.0 MiB" in run("node", "show", "chunk-2").output


def test_an_unknown_server_is_an_error_that_names_the_known_ones(master: Master) -> None:
    result = run("node", "show", "chunk-9")

    assert result.exit_code == 1
    assert "known: chunk-1, chunk-2" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--master", "10.0.0.7:7400", "status"),
        ("status", "--master", "10.0.0.7:7400"),
        ("--master", "1.1.1.1:1", "status", "--master", "tcp://10.0.0.7:7400"),
    ],
)
def test_the_master_may_be_named_before_or_behind(master: Master, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 0
    assert master.asked[0][0] == "tcp://10.0.0.7:7400"


def test_a_status_is_set(master: Master) -> None:
    master.answer = lambda message: ServerStatusSet(CLUSTER.nodes[0], True)
    result = run("set-status", "chunk-1", "ro")

    assert (result.exit_code, result.output) == (0, "chunk-1 is to be ro now\n")
    assert master.asked[0][1] == SetServerStatus(0, "chunk-1", "ro")


def test_setting_a_status_again_is_no_error(master: Master) -> None:
    master.answer = lambda message: ServerStatusSet(CLUSTER.nodes[0], False)
    result = run("set-status", "chunk-1", "ro")

    assert (result.exit_code, result.output) == (0, "chunk-1 was to be ro already\n")
    assert json.loads(run("set-status", "chunk-1", "ro", "--json").output)["changed"] is False


def test_a_refusal_is_one_line_and_status_1(master: Master) -> None:
    def refuse(message: Request) -> Message:
        raise Refused("no server 'x'; known: chunk-1")

    master.answer = refuse
    result = run("set-status", "x", "ro")

    assert result.exit_code == 1
    assert result.output == "Error: no server 'x'; known: chunk-1\n"


def test_a_passing_failure_says_that_trying_again_may_help(master: Master) -> None:
    def fail(message: Request) -> Message:
        raise Unavailable("no answer")

    master.answer = fail
    assert run("status").output == "Error: no answer (it may work if tried again)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("set-status", "chunk-1", "broken"),
        ("set-status", "chunk-1"),
        ("node", "show"),
        ("status", "--master", "nowhere"),
        ("status", "--master", "127.0.0.1:99999"),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_status_2_and_asks_nobody(master: Master, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert master.asked == []


def test_a_dead_master_is_an_error_in_time() -> None:
    before = time.monotonic()
    result = run("status", "--master", "127.0.0.1:1")

    assert result.exit_code == 1
    assert "no answer from tcp://127.0.0.1:1" in result.output
    assert time.monotonic() - before < 5
    assert admin_common.TIMEOUT_S < 4
