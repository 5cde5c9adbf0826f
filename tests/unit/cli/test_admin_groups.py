"""``fabric admin group|node``, and how tasks are begun and waited for."""

from __future__ import annotations

import json
import shlex

import pytest

from fabric.cli import admin_common
from fabric.cli.chunk import command as chunk_command
from fabric.errors import Refused, Unavailable
from fabric.wire.messages import AddGroup, CancelTask, GroupAdded, StartTask, TaskStarted
from tests.unit.cli.peers import CLUSTER, GIB, Peers, group, node, peers, rows_of, run, task

__all__ = ["peers"]

PLAN = ["move 2.0 GiB of group 2 to other groups", "then let its servers be"]
BEGUN = TaskStarted(task(), True, PLAN)


# --- group add -------------------------------------------------------------------------------------


def test_a_new_group_tells_how_to_start_its_servers(peers: Peers) -> None:
    peers.answers = [GroupAdded(group(3, state="FORMING", replicas=3), True)]
    result = run("group", "add", "--replicas", "3")
    assert result.exit_code == 0, result.output
    assert peers.asked == [AddGroup(0, 0, 3, False)]
    assert "group 3 is new: 0 of 3 servers" in result.output
    commands = [line.strip() for line in result.output.splitlines() if line.startswith("  fabric chunk")]
    assert len(commands) == 3
    parsed = []
    for line in commands:
        with chunk_command.make_context("chunk", shlex.split(line)[2:]) as context:
            parsed.append(context.params)
    assert [params["name"] for params in parsed] == ["chunk-6", "chunk-7", "chunk-8"]
    assert {params["group"] for params in parsed} == {3}
    assert {params["master"] for params in parsed} == {"tcp://127.0.0.1:7400"}
    used = {known.endpoint for known in CLUSTER.nodes}
    listens = {params["listen"] for params in parsed}
    assert len(listens) == 3
    assert not listens & used


def test_on_other_machines_the_lines_name_the_place_to_fill_in(peers: Peers) -> None:
    peers.master = "tcp://10.0.0.7:7400"
    peers.answers = [GroupAdded(group(3), True)]
    result = run("--master", "10.0.0.7:7400", "group", "add", "3", "--json")
    shown = json.loads(result.output)
    assert peers.asked == [AddGroup(0, 3, 0, False)]
    assert shown["commands"][0] == (
        "fabric chunk --name chunk-6 --listen 0.0.0.0:7410 --advertise HOST:7410 --master 10.0.0.7:7400"
        " --data /srv/chunk-6 --group 3"
    )
    assert (shown["changed"], shown["group"]["group"]) == (True, 3)


def test_a_group_that_is_complete_needs_no_servers(peers: Peers) -> None:
    peers.answers = [GroupAdded(group(1, 1, 2), False)]
    result = run("group", "add", "1")
    assert result.output == "group 1 is there already: 2 of 2 servers\n"


def test_a_member_that_is_on_its_way_back_leaves_no_gap(peers: Peers) -> None:
    degraded = group(1, 1, learners=["chunk-2"])
    peers.answers = [GroupAdded(degraded, False)]
    assert "fabric chunk" not in run("group", "add", "1").output
    peers.cluster = CLUSTER.__class__(2, 0, "0.1.0", 0, 0, [node(1), node(2)], [degraded])
    assert "no server yet" not in run("topology").output


def test_a_dry_run_of_adding_says_so(peers: Peers) -> None:
    peers.answers = [GroupAdded(group(3), True)]
    assert "group 3 would be new" in run("group", "add", "--dry-run").output
    assert peers.asked == [AddGroup(0, 0, 0, True)]


# --- looking ---------------------------------------------------------------------------------------


def test_one_group_with_its_servers(peers: Peers) -> None:
    peers.cluster = CLUSTER.__class__(
        *(
            getattr(CLUSTER, name)
            for name in ("term", "uptime_ms", "version", "fid_high_water", "pending_deletes")
        ),
        CLUSTER.nodes,
        [group(1, 1, 2, learners=["chunk-5"], draining=True, reason="busy"), group(2, 3, 4)],
    )
    result = run("group", "show", "1")
    assert result.exit_code == 0
    assert "draining; busy" in result.output
    assert "chunk-5" in result.output
    assert "chunk-3" not in result.output
    shown = json.loads(run("group", "show", "1", "--json").output)
    assert [entry["server"] for entry in shown["nodes"]] == ["chunk-1", "chunk-2", "chunk-5"]


def test_an_unknown_group_is_an_error_that_names_the_known_ones(peers: Peers) -> None:
    result = run("group", "show", "9")
    assert (result.exit_code, result.output) == (1, "Error: no group 9; known: 1, 2\n")


# --- tasks of groups and nodes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (("group", "drain", "2"), StartTask(0, "drain-group", 2)),
        (("group", "drain", "2", "--max-mb-s", "1.5"), StartTask(0, "drain-group", 2, bytes_per_s=1_500_000)),
        (("group", "drain", "2", "--dry-run"), StartTask(0, "drain-group", 2, dry_run=True)),
        (("group", "accept-loss", "2", "--yes"), StartTask(0, "accept-loss", 2)),
        (("node", "add", "chunk-5", "--group", "1"), StartTask(0, "add-node", 1, "chunk-5")),
        (
            ("node", "replace", "chunk-1", "chunk-5", "--dry-run"),
            StartTask(0, "replace-node", 0, "chunk-1", "chunk-5", dry_run=True),
        ),
        (("node", "drain", "chunk-1"), StartTask(0, "drain-node", 0, "chunk-1")),
        (("rebalance", "--max-mb-s", "50"), StartTask(0, "rebalance", bytes_per_s=50_000_000)),
        (("repair",), StartTask(0, "repair")),
        (("repair", "--group", "2"), StartTask(0, "repair", 2)),
        (("gc", "run", "--dry-run"), StartTask(0, "gc", dry_run=True)),
    ],
)
def test_each_command_asks_for_its_task(
    peers: Peers, arguments: tuple[str, ...], request_: StartTask
) -> None:
    peers.answers = [BEGUN]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert peers.asked == [request_]


def test_a_task_that_was_begun_is_told_with_its_plan_and_how_to_wait(peers: Peers) -> None:
    peers.answers = [BEGUN]
    assert run("group", "drain", "2").output.splitlines() == [
        *(f"- {line}" for line in PLAN),
        "task 3, drain group 2: begun",
        "`fabric admin task wait 3` waits for its end",
    ]
    peers.answers = [TaskStarted(task(), False, [])]
    assert "task 3, drain group 2: runs already" in run("group", "drain", "2").output


def test_a_dry_run_says_that_nothing_was_done(peers: Peers) -> None:
    peers.answers = [BEGUN]
    result = run("group", "drain", "2", "--dry-run", "--wait")
    assert result.output.startswith("this would be done:\n- move 2.0 GiB")
    assert result.output.endswith("nothing was done: this was a dry run\n")


def test_the_same_as_json(peers: Peers) -> None:
    peers.answers = [BEGUN]
    shown = json.loads(run("group", "drain", "2", "--json").output)
    assert (shown["task"]["task"], shown["changed"], shown["plan"]) == (3, True, PLAN)


def test_waiting_looks_until_the_task_has_ended(peers: Peers) -> None:
    peers.answers = [BEGUN]
    ended = task(state="done", done=2 * GIB, ended_at_ms=1_700_000_090_000)
    peers.tasks = [[task()], [task(2), task(done=GIB + 5)], [ended]]
    result = run("group", "drain", "2", "--wait")
    assert result.exit_code == 0, result.output
    last = "task 3, drain group 2: done after 1m 30s, 2.0 GiB of 2.0 GiB"
    assert result.output.splitlines()[-1] == last
    assert len(peers.tasks) == 1, "it looked at them all"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_task_that_was_not_done_is_status_1(peers: Peers, state: str) -> None:
    peers.answers = [BEGUN]
    peers.tasks = [[task(state=state, reason="no other group", ended_at_ms=1_700_000_001_000)]]
    result = run("group", "drain", "2", "--wait", "--json")
    assert result.exit_code == 1
    shown = json.loads(result.output)
    assert (shown["task"]["state"], shown["task"]["reason"], shown["plan"]) == (state, "no other group", PLAN)


def test_a_master_that_is_away_meanwhile_is_waited_for(peers: Peers) -> None:
    peers.answers = [BEGUN]
    away = Unavailable("no answer")
    peers.tasks = [[task()], away, away, [task(state="done")]]
    assert run("group", "drain", "2", "--wait").exit_code == 0


def test_a_master_that_stays_away_ends_the_waiting(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_common, "PATIENCE_S", 0.05)
    peers.answers = [BEGUN]
    peers.tasks = [[task()], Unavailable("no answer")]
    result = run("group", "drain", "2", "--wait")
    assert result.exit_code == 1
    assert result.output.endswith("Error: no answer (it may work if tried again)\n")


def test_whoever_stops_waiting_is_told_that_the_task_goes_on(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fabric.cli.task_work.time.sleep", interrupt)
    peers.answers = [BEGUN]
    result = run("group", "drain", "2", "--wait")
    assert result.exit_code == 1
    assert "the task goes on; `fabric admin task cancel 3` would end it" in result.stderr


def test_a_refusal_while_waiting_is_not_repeated(peers: Peers) -> None:
    peers.answers = [BEGUN]
    peers.tasks = [[task()], Refused("no"), [task(state="done")]]
    assert run("group", "drain", "2", "--wait").exit_code == 1
    assert len(peers.tasks) == 1


def test_a_task_that_the_master_has_forgotten_ends_the_waiting(peers: Peers) -> None:
    peers.answers = [BEGUN]
    peers.tasks = [[task(2)]]
    result = run("group", "drain", "2", "--wait")
    assert result.exit_code == 1
    assert "the master knows no task 3" in result.output


def test_a_drain_is_cancelled_by_its_group(peers: Peers) -> None:
    others = [task(2, state="cancelled"), task(4, group=1), task(5, kind="rebalance", group=0)]
    peers.tasks = [[task(1), *others]]
    peers.answers = [TaskStarted(task(1, state="cancelled"), True, [])]
    result = run("group", "drain", "2", "--cancel")
    assert result.exit_code == 0
    assert result.output == "group 2 takes new fragments again; what was moved stays moved\n"
    assert peers.asked == [CancelTask(0, 1)]


def test_a_group_that_was_drained_takes_fragments_again(peers: Peers) -> None:
    peers.tasks = [[task(1, state="done")]]
    peers.answers = [TaskStarted(task(1, state="cancelled"), True, [])]
    assert run("group", "drain", "2", "--cancel").exit_code == 0
    assert peers.asked == [CancelTask(0, 1)]


def test_what_is_over_at_once_has_no_number(peers: Peers) -> None:
    over = task(0, kind="accept-loss", state="done", reason="group 2 begins anew", total=0, done=0)
    peers.answers = [TaskStarted(over, True, PLAN)]
    result = run("group", "accept-loss", "2", "--yes")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "accept the loss of group 2: done: group 2 begins anew"


def test_a_drain_that_does_not_run_cannot_be_cancelled(peers: Peers) -> None:
    peers.tasks = [[task(1, state="cancelled")]]
    result = run("group", "drain", "2", "--cancel")
    assert (result.exit_code, result.output) == (1, "Error: group 2 is not being drained\n")


# --- a loss ----------------------------------------------------------------------------------------


def test_a_loss_is_accepted_only_by_who_has_read_what_it_means(peers: Peers) -> None:
    peers.answers = [BEGUN]
    assert run("group", "accept-loss", "2", answer="n\n").exit_code == 1
    assert peers.asked == [StartTask(0, "accept-loss", 2, dry_run=True)]

    peers.asked.clear()
    peers.answers = [BEGUN, BEGUN]
    result = run("group", "accept-loss", "2", answer="y\n")
    assert result.exit_code == 0
    assert PLAN[0] in result.stderr
    assert peers.asked == [StartTask(0, "accept-loss", 2, dry_run=True), StartTask(0, "accept-loss", 2)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("group", "drain"),
        ("group", "drain", "0"),
        ("group", "drain", "two"),
        ("group", "drain", "2", "--max-mb-s", "0"),
        ("group", "drain", "2", "--cancel", "--wait"),
        ("group", "add", "--replicas", "0"),
        ("node", "add", "chunk-5"),
        ("node", "replace", "chunk-1"),
        ("task", "wait", "x"),
        ("events", "--limit", "0"),
        ("kill-pending",),
        ("io-status", "--rounds", "2"),
        ("details",),
        ("scrub", "stop"),
    ],
)
def test_wrong_usage_is_status_2_and_asks_nobody(peers: Peers, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert (peers.asked, peers.orders) == ([], [])


def test_the_tree_has_groups_members_learners_gaps_and_spares(peers: Peers) -> None:
    peers.cluster = CLUSTER.__class__(
        2, 0, "0.1.0", 0, 0,
        [
            node(1, state="SYNCING", reason="not alive: chunk-2"),
            node(2, state="OFFLINE", reason="no heartbeat"),
            node(3, reason="copies group 1"),
            node(5, 0, free_bytes=GIB // 2),
        ],
        [
            group(1, 1, 2, learners=["chunk-3"], reason="not alive: chunk-2"),
            group(2, state="FORMING", replicas=2),
        ],
    )  # fmt: skip
    lines = run("topology").output.splitlines()
    assert "master 127.0.0.1:7400, term 2" in lines[0]
    text = "\n".join(lines)
    assert "chunk-2 OFFLINE" in text and "(no heartbeat)" in text
    assert text.count("not alive: chunk-2") == 1, "what stands beside the group is not told again"
    assert "copies group 1" in next(line for line in lines if "chunk-3" in line)
    assert sum("(no server yet)" in line for line in lines) == 2
    spare = next(number for number, line in enumerate(lines) if "in no group" in line)
    assert "████████░░ 25% of 2.0 GiB free" in lines[spare + 1]
    shown = json.loads(run("topology", "--json").output)
    assert [entry["server"] for entry in shown["groups"][0]["learners"]] == ["chunk-3"]
    assert [entry["server"] for entry in shown["spare"]] == ["chunk-5"]
    assert rows_of(run("groups"))
