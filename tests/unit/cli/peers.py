"""A master and chunk servers that answer ``fabric admin`` from scripts, without a network."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from fabric.cli import admin_common, admin_servers, admin_tasks, server_work, task_work
from fabric.cli.root import fabric
from fabric.errors import FabricError, Unavailable
from fabric.node import ask as ask_module
from fabric.wire import codec
from fabric.wire.messages import (
    ChunkDetails,
    ClusterStatus,
    CompactionDetails,
    GetStatus,
    GroupStatus,
    ListTasks,
    MaintainChunk,
    Message,
    NodeStatus,
    Request,
    ScrubDetails,
    TaskList,
    TaskStatus,
)

MASTER = "tcp://127.0.0.1:7400"
GIB = 2**30


def node(number: int, group: int = 1, **changes: Any) -> NodeStatus:
    plain = NodeStatus(
        f"chunk-{number}", "u", endpoint(number), group, 3, "RW", "", "rw", 10, 2048, GIB, 2 * GIB, 0, 100, 0
    )
    return msgspec.structs.replace(plain, **changes)


def endpoint(number: int) -> str:
    return f"tcp://127.0.0.1:{7409 + number}"


def group(number: int, *members: int, **changes: Any) -> GroupStatus:
    names = [f"chunk-{member}" for member in members]
    plain = GroupStatus(number, 3, "WRITABLE", "", 2, names, GIB, 2048, 10)
    return msgspec.structs.replace(plain, **changes)


CLUSTER = ClusterStatus(
    2, 3_723_000, "0.1.0", 200_000, 4,
    [node(1), node(2), node(3, 2), node(4, 2), node(5, 0)],
    [group(1, 1, 2), group(2, 3, 4)],
    doomed=7,
    orphans_freed=9,
)  # fmt: skip

IDLE = ScrubDetails(False, False, 1.0, 3, 1_700_000_000_000, 1_700_000_061_000, 500, 2**20, 0)
AT_REST = CompactionDetails(False, False, 0.0, [], 2, 4096, "")


def details(number: int, **changes: Any) -> ChunkDetails:
    plain = ChunkDetails(
        f"chunk-{number}", "0.1.0", 77, 1, 5, "RW", "", 10, 2**21, 3, 2**22, 2**20, GIB, 2 * GIB, 0, 0,
        IDLE, AT_REST,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def task(number: int = 3, **changes: Any) -> TaskStatus:
    plain = TaskStatus(
        number,
        "drain-group",
        2,
        "",
        "",
        "running",
        "",
        1_700_000_000_000,
        0,
        2 * GIB,
        GIB,
        "bytes",
        0,
        60_000,
    )
    return msgspec.structs.replace(plain, **changes)


class Peers:
    """Records every question.  What a script answers must fit the protocol."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        """Of the master, without the looks at cluster and tasks."""
        self.orders: list[tuple[str, str]] = []
        """Of chunk servers: (server, action)."""
        self.cluster = CLUSTER
        self.answers: list[Message] = []
        """Of the master, in turn."""
        self.tasks: list[list[TaskStatus] | FabricError] = [[]]
        """What ListTasks finds, in turn; the last one again and again."""
        self.chunks: dict[str, list[ChunkDetails]] = {
            endpoint(number): [details(number)] for number in range(1, 6)
        }
        """The same for each chunk server; one that is not here is dead."""
        self.silent: set[str] = set()
        """Endpoints that do not answer now."""
        self.master = MASTER

    def ask(self, to: str, message: Request, timeout_s: float) -> Message:
        assert timeout_s < 5
        codec.decode(codec.encode(1, message))
        answer = self._answer(to, message)
        codec.decode(codec.encode(1, answer))
        return answer

    def _answer(self, to: str, message: Request) -> Message:
        if isinstance(message, MaintainChunk):
            script = self.chunks.get(to)
            if script is None or to in self.silent:
                raise Unavailable(f"no answer from {to} within 3 s")
            self.orders.append((script[0].server, message.action))
            return script.pop(0) if len(script) > 1 else script[0]
        assert to == self.master
        if isinstance(message, GetStatus):
            return self.cluster
        if isinstance(message, ListTasks):
            found = self.tasks.pop(0) if len(self.tasks) > 1 else self.tasks[0]
            if isinstance(found, FabricError):
                raise found
            return TaskList(found)
        self.asked.append(message)
        return self.answers.pop(0)

    def order_of(self, server: str) -> list[str]:
        return [action for name, action in self.orders if name == server]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Peers:
    peers = Peers()
    monkeypatch.setattr(ask_module, "ask", peers.ask)
    for module in (admin_common, admin_servers, admin_tasks, server_work, task_work):
        monkeypatch.setattr(module, "LOOK_S", 0.0)
    monkeypatch.setattr(admin_servers, "REPAIR_S", 0.0)
    return peers


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(fabric, ["admin", *arguments], input=answer)


def rows_of(result: Result) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in result.stdout.splitlines()]
