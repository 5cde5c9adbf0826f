"""``fabric chunk status|scrub|compact`` against a chunk server that answers from a script."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from fabric.cli import chunk_upkeep
from fabric.cli.root import fabric
from fabric.errors import BadRequest
from fabric.node import ask as ask_module
from fabric.wire.messages import (
    ChunkDetails,
    CompactionDetails,
    MaintainChunk,
    Message,
    Request,
    ScrubDetails,
)

IDLE = ScrubDetails(False, False, 1.0, 3, 1_700_000_000_000, 1_700_000_061_000, 500, 2**20, 0)
AT_REST = CompactionDetails(False, False, 0.0, [], 2, 4096, "")
DETAILS = ChunkDetails(
    "chunk-1", "0.1.0", 77, 1, 5, "RW", "", 10, 2**21, 3, 2**22, 2**20, 2**30, 2**31, 0, 0, IDLE, AT_REST
)


def scrubbing(*, quarantined: int = 0, **changes: Any) -> ChunkDetails:
    scrub = msgspec.structs.replace(IDLE, **changes)
    return msgspec.structs.replace(DETAILS, scrub=scrub, quarantined=quarantined)


def compacting(**changes: Any) -> ChunkDetails:
    return msgspec.structs.replace(DETAILS, compaction=msgspec.structs.replace(AT_REST, **changes))


class Server:
    """Gives its answers in turn; the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[ChunkDetails] = [DETAILS]
        self.asked: list[str] = []
        self.endpoint = ""
        self.error: BadRequest | None = None

    def ask(self, endpoint: str, message: Request, timeout_s: float) -> Message:
        assert isinstance(message, MaintainChunk)
        assert timeout_s < 5
        self.endpoint = endpoint
        self.asked.append(message.action)
        if self.error is not None:
            raise self.error
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setattr(ask_module, "ask", server.ask)
    monkeypatch.setattr(chunk_upkeep, "LOOK_S", 0.0)
    monkeypatch.setattr(chunk_upkeep, "REPAIR_S", 0.0)
    yield server


def run(*arguments: str) -> Result:
    return CliRunner().invoke(fabric, ["chunk", *arguments])


def test_status_shows_what_is_there_and_how_upkeep_is(server: Server) -> None:
    result = run("status", "10.0.0.7:7410")
    assert result.exit_code == 0, result.output
    assert (server.endpoint, server.asked) == ("tcp://10.0.0.7:7410", ["status"])
    for text in ("chunk-1, version 0.1.0", "group", "1, epoch 5, RW", "10, 2.0 MiB", "3, 4.0 MiB"):
        assert text in result.stdout
    assert "in 1m 1s: 500 records, 1.0 MiB, 0 damaged" in result.stdout
    assert "idle; 4.0 KiB given back since the start" in result.stdout


@pytest.mark.parametrize(
    ("details", "text"),
    [
        (scrubbing(running=True, progress=0.25), "25% since"),
        (scrubbing(ordered=True), "about to begin"),
        (scrubbing(passes=0, started_at_ms=0, finished_at_ms=0), "never finished a pass"),
        (compacting(running=True, progress=0.5, files=[1, 7]), "50% of data files 1, 7"),
        (
            compacting(running=True, files=list(range(1, 31))),
            "0% of data files 1, 2, 3, 4, 5, 6, 7, 8 and 22",
        ),
        (compacting(ordered=True), "about to begin; 4.0 KiB"),
        (compacting(problem="disk failed"), "given up: disk failed"),
        (msgspec.structs.replace(DETAILS, read_only_reason="disk nearly full"), "disk nearly full"),
    ],
)
def test_status_tells_each_state_of_upkeep(server: Server, details: ChunkDetails, text: str) -> None:
    server.answers = [details]
    assert text in run("status", "10.0.0.7:7410").stdout


def test_status_as_json_has_the_fields_by_name(server: Server) -> None:
    shown = json.loads(run("status", "10.0.0.7:7410", "--json").stdout)
    assert (shown["server"], shown["garbage_bytes"], shown["scrub"]["passes"]) == ("chunk-1", 2**20, 3)
    assert shown["compaction"]["freed_bytes"] == 4096


@pytest.mark.parametrize("action", ["scrub", "compact"])
def test_without_wait_it_only_asks(server: Server, action: str) -> None:
    server.answers = [scrubbing(ordered=True)]
    assert run(action, "10.0.0.7:7410").exit_code == 0
    assert server.asked == [action]


def test_a_scrub_is_waited_for_from_its_order_to_its_end(server: Server) -> None:
    server.answers = [
        scrubbing(ordered=True),
        scrubbing(ordered=True, running=True, progress=0.9),  # an older pass
        scrubbing(running=True, progress=0.1),
        scrubbing(running=True, progress=1.0),
        scrubbing(passes=4, damaged=1),
    ]
    result = run("scrub", "10.0.0.7:7410", "--wait", "--json")
    assert result.exit_code == 0, result.output
    assert server.asked == ["scrub", *["status"] * 4]
    assert json.loads(result.stdout)["scrub"]["passes"] == 4


def test_the_last_repairs_are_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_upkeep, "REPAIR_S", 60.0)
    server.answers = [scrubbing(ordered=True), *[scrubbing(passes=4, quarantined=n) for n in (2, 1, 0)]]
    assert run("scrub", "10.0.0.7:7410", "--wait").exit_code == 0
    assert len(server.asked) == 4


def test_damage_that_stays_is_status_1(server: Server) -> None:
    server.answers = [scrubbing(ordered=True), scrubbing(passes=4, quarantined=2)]
    result = run("scrub", "10.0.0.7:7410", "--wait")
    assert result.exit_code == 1
    assert ["damaged", "2"] in [line.split() for line in result.stdout.splitlines()]


def test_a_compaction_is_waited_for_over_all_of_its_files(server: Server) -> None:
    server.answers = [
        compacting(ordered=True),
        compacting(ordered=True, running=True, progress=1.0, files=[1]),
        compacting(ordered=True, running=True, progress=0.1, files=[2]),
        compacting(finished=4),
    ]
    assert run("compact", "10.0.0.7:7410", "--wait").exit_code == 0
    assert server.asked == ["compact", *["status"] * 3]


def test_a_compaction_that_is_given_up_is_status_1(server: Server) -> None:
    server.answers = [compacting(ordered=True), compacting(problem="no space left")]
    result = run("compact", "10.0.0.7:7410", "--wait")
    assert result.exit_code == 1
    assert "given up: no space left" in result.stdout


@pytest.mark.parametrize("action", ["scrub", "compact"])
def test_a_server_that_was_restarted_has_forgotten_the_order(server: Server, action: str) -> None:
    ordered = msgspec.structs.replace(scrubbing(ordered=True), compaction=compacting(ordered=True).compaction)
    server.answers = [ordered, msgspec.structs.replace(DETAILS, incarnation=78)]
    result = run(action, "10.0.0.7:7410", "--wait")
    assert result.exit_code == 1
    assert result.output == "Error: chunk-1 was restarted meanwhile: ask it again\n"


def test_another_role_is_an_error_in_one_line(server: Server) -> None:
    server.error = BadRequest("a master does not answer MaintainChunk")
    result = run("status", "10.0.0.7:7400")
    assert (result.exit_code, result.output) == (1, "Error: a master does not answer MaintainChunk\n")


@pytest.mark.parametrize("arguments", [("status",), ("scrub", "nowhere"), ("compact", "1.1.1.1:1", "more")])
def test_wrong_usage_is_status_2_and_asks_nobody(server: Server, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert server.asked == []


def test_a_dead_server_is_an_error_in_time() -> None:
    before = time.monotonic()
    result = run("status", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "no answer from tcp://127.0.0.1:1" in result.output
    assert time.monotonic() - before < 5
