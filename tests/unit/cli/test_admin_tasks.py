"""``fabric admin tasks|task|events|gc``."""

from __future__ import annotations

import json

import pytest

from fabric.cli.task_work import Pace, share_of, what
from fabric.errors import Refused, Unavailable
from fabric.wire.messages import (
    CancelTask,
    EventList,
    EventRecord,
    ListEvents,
    Message,
    Request,
    TaskStarted,
)
from tests.unit.cli.peers import GIB, Peers, peers, rows_of, run, task

__all__ = ["peers"]


def event(number: int, text: str = "no heartbeat for 4 s") -> EventRecord:
    return EventRecord(number, 1_700_000_000_000, "node", "chunk-2", text)


# --- tasks -----------------------------------------------------------------------------------------


def test_tasks_that_run_are_listed_with_their_progress(peers: Peers) -> None:
    repair = task(4, kind="repair", group=0, total=512, done=128, unit="parts", left_ms=-1, reason="waits")
    ended = task(2, kind="gc", group=0, state="done", total=0, done=0)
    peers.tasks = [[ended, task(bytes_per_s=50_000_000), repair]]
    lines = run("tasks").output.splitlines()
    drain = next(line for line in lines if "drain group 2" in line)
    assert drain.split()[-10:] == ["1m", "0s", "50", "MB/s", "1.0", "GiB", "of", "2.0", "GiB", "50%"]
    assert next(line for line in lines if "repair all groups" in line).split()[-5:] == [
        "128", "of", "512", "parts", "25%",
    ]  # fmt: skip
    assert not any("garbage collection" in line for line in lines)
    assert any("garbage collection" in line for line in run("tasks", "--all").output.splitlines())


def test_tasks_as_json(peers: Peers) -> None:
    peers.tasks = [[task(2, state="failed"), task(3)]]
    assert [entry["task"] for entry in json.loads(run("tasks", "--json").output)] == [3]
    assert [entry["task"] for entry in json.loads(run("tasks", "--all", "--json").output)] == [2, 3]


def test_without_tasks_it_says_so(peers: Peers) -> None:
    assert run("tasks").output == "no task runs; --all shows those that have ended\n"
    assert run("tasks", "--all").output == "no task\n"
    assert json.loads(run("tasks", "--json").output) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "add-node", "server": "chunk-5"}, "add chunk-5 to group 2"),
        ({"kind": "replace-node", "server": "a", "replacement": "b"}, "replace a by b"),
        ({"kind": "drain-node", "server": "a"}, "drain a"),
        ({"kind": "repair"}, "repair group 2"),
        ({"kind": "accept-loss"}, "accept the loss of group 2"),
        ({"kind": "some-day"}, "some-day"),
    ],
)
def test_a_task_in_words(changes: dict[str, str], text: str) -> None:
    assert what(task(**changes)) == text


def test_rate_and_time_left_stand_beside_the_bar() -> None:
    pace = Pace()
    assert pace.note(task(done=0), 10.0) == "1m 0s left"
    assert pace.note(task(done=3 * 2**20, left_ms=-1), 12.0) == "1.5 MiB/s"
    assert pace.note(task(done=0, unit="parts", reason="chunk-2 is OFFLINE"), 14.0) == (
        "1m 0s left, chunk-2 is OFFLINE"
    )
    assert (share_of(task()), share_of(task(total=0)), share_of(task(done=9 * GIB))) == (0.5, 0.0, 1.0)


def test_waiting_for_a_task_begins_while_the_master_is_still_starting(peers: Peers) -> None:
    peers.tasks = [Unavailable("the master is starting"), [task(3, state="done")]]
    assert run("task", "wait", "3").exit_code == 0


def test_a_task_is_waited_for_by_its_number(peers: Peers) -> None:
    peers.tasks = [[task()], [task()], [task(state="done")]]
    assert run("task", "wait", "3").exit_code == 0
    peers.tasks = [[task(state="failed", reason="no room")]]
    result = run("task", "wait", "3", "--json")
    assert (result.exit_code, json.loads(result.output)["reason"]) == (1, "no room")


def test_an_unknown_task_is_an_error(peers: Peers) -> None:
    result = run("task", "wait", "9")
    assert result.exit_code == 1
    assert "the master knows no task 9" in result.output


def test_a_task_is_cancelled_once(peers: Peers) -> None:
    peers.answers = [TaskStarted(task(state="cancelled"), True, [])]
    assert run("task", "cancel", "3").output == "task 3, drain group 2: cancelled\n"
    assert peers.asked == [CancelTask(0, 3)]
    peers.answers = [TaskStarted(task(state="done"), False, [])]
    assert run("task", "cancel", "3").output == "task 3, drain group 2: was done already\n"


# --- garbage ---------------------------------------------------------------------------------------


def test_garbage_on_its_way_out(peers: Peers) -> None:
    peers.tasks = [[task(1, kind="gc"), task(8, kind="gc", state="done", total=512, done=512, unit="parts")]]
    rows = rows_of(run("gc", "status"))
    assert ["deleted", "objects", "that", "still", "hold", "fragments", "7"] in rows
    text = run("gc", "status").output
    assert "task 8, done" in text
    assert "512 of 512 parts" in text
    shown = json.loads(run("gc", "status", "--json").output)
    assert (shown["doomed"], shown["pending_deletes"], shown["orphans_freed"]) == (7, 4, 9)
    assert shown["task"]["task"] == 8
    assert shown["servers"][0]["server"] == "chunk-1"


def test_garbage_that_nobody_has_collected(peers: Peers) -> None:
    assert json.loads(run("gc", "status", "--json").output)["task"] is None
    assert "none" in run("gc", "status").output


# --- events ----------------------------------------------------------------------------------------


def test_events_are_shown_with_their_reason(peers: Peers) -> None:
    peers.answers = [EventList([event(7), event(8, "joined")])]
    lines = run("events", "--limit", "2").output.splitlines()
    assert peers.asked == [ListEvents(0, 0, 2)]
    assert [line.split()[0] for line in lines] == ["7", "8"]
    assert "chunk-2" in lines[0] and "no heartbeat for 4 s" in lines[0]
    peers.answers = [EventList([event(7)])]
    assert json.loads(run("events", "--json").output)[0]["text"] == "no heartbeat for 4 s"


def test_events_are_followed_also_past_a_master_that_is_away(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    script: list[Message | Exception] = [
        EventList([event(7)]),
        EventList([]),
        Unavailable("no answer"),
        EventList([event(8, "joined"), event(9)]),
        KeyboardInterrupt(),  # type: ignore[list-item]
    ]
    asked: list[Request] = []

    def answer(to: str, message: Request) -> Message:
        asked.append(message)
        found = script.pop(0)
        if isinstance(found, Message):
            return found
        raise found

    monkeypatch.setattr(peers, "_answer", answer)
    result = run("events", "--follow", "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["number"] for line in result.output.splitlines()] == [7, 8, 9]
    assert [message.after for message in asked if isinstance(message, ListEvents)] == [0, 7, 7, 7, 9]


def test_a_master_that_refuses_is_one_line(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(to: str, message: Request) -> Message:
        raise Refused("group 2 is the only one")

    monkeypatch.setattr(peers, "_answer", refuse)
    result = run("group", "drain", "2", "--wait")
    assert (result.exit_code, result.output) == (1, "Error: group 2 is the only one\n")
