"""Online changes: a group that is drained, and a group that is added, while clients put and get."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import monotonic

from bench.engine.figures import Figure, figure
from bench.errors import BenchError
from bench.healing.roles import ASK_S, Roles
from bench.healing.traffic import Traffic, failed, fill, longest_s, p99_s
from bench.machine import ROOT
from fabric.errors import FabricError
from fabric.node.ask import ask
from fabric.settings import FRAGMENT_BYTES_MAX
from fabric.wire.messages import ListTasks, TaskList

QUIET_S = 4.0
ADMIN_S = 300.0
EMPTY_S = 180.0
USED_S = 2.0
DELETED_S = 60.0
"""From the move of the last fragment until its old copies are gone."""
MANY = 1e6
"""Megabytes a second: as fast as it can."""


def drained_group(work: Path, *, total_bytes: int, grace_s: float) -> list[Figure]:
    """Fill the only group with so much, let there be a second one, drain the first under load.

    ``grace_s``: readers of what was moved have so long to finish.
    """
    with Roles(work / "drain", f"delete_grace_s = {grace_s:.1f}") as roles:
        roles.start_all(groups=1)
        names = fill(roles.proxy, "filled", total_bytes // FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX)
        roles.start_group(2)
        roles.wait_writable()
        held = roles.details("chunk-1").live_bytes
        with Traffic(roles.proxy, names, writers=2, readers=2, pause_s=0.05) as traffic:
            quiet_since = monotonic()
            traffic.wait_calls(20)
            traffic.wait_for(QUIET_S)
            started = monotonic()
            _admin(roles, "group", "drain", "1", "--max-mb-s", f"{MANY:g}")
            moved_s = roles.wait_empty(lambda: _not_moved(roles), ADMIN_S)
            roles.wait_empty(lambda: _left(roles, 1), EMPTY_S)
            ended = monotonic()
            _admin(roles, "group", "drain", "1", "--wait")  # it says so when it was not done
        gets = traffic.calls("get", started, ended)
        calls = gets + traffic.calls("put", started, ended)
        before = p99_s(traffic.calls("get", quiet_since, started))
    told = f"{held / 1e9:.1f} GB moved in {moved_s:.1f} s, {held / 1e6 / moved_s:.0f} MB/s"
    return [
        _count("drain: failed calls", len(failed(calls)), f"of {len(calls)}; {told}"),
        figure(
            "drain: group empty after its start",
            [ended - started],
            "s",
            target=moved_s + DELETED_S,
            at_least=False,
            beside=f"readers of what was moved have {grace_s:g} s to finish",
        ),
        figure(
            "drain: p99 of gets over before",
            [p99_s(gets) / before],
            "times",
            target=5,
            at_least=False,
            beside=f"p99 before {before * 1000:.0f} ms, during {p99_s(gets) * 1000:.0f} ms;"
            f" longest of all calls {longest_s(calls):.2f} s",
        ),
    ]


def added_group(work: Path, *, runs: int, total_bytes: int) -> list[Figure]:
    """A group after the other beside a full one, under puts and gets."""
    first_use, failures, moved, forming = [], [], [], []
    with Roles(work / "add") as roles:
        roles.start_all(groups=1)
        names = fill(roles.proxy, "filled", total_bytes // FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX)
        with Traffic(roles.proxy, names, writers=4, readers=2, pause_s=0.02) as traffic:
            for run in range(runs):
                group = run + 2
                traffic.wait_calls(20)
                started = monotonic()
                _admin(roles, "group", "add", str(group))
                roles.start_group(group)
                roles.wait_writable()
                writable = monotonic()
                roles.wait_empty(lambda group=group: _unused(roles, group), 60)  # type: ignore[misc]
                first_use.append(monotonic() - writable)
                forming.append(writable - started)
                traffic.wait_for(QUIET_S)
                calls = traffic.calls("put", started) + traffic.calls("get", started)
                failures.append(float(len(failed(calls))))
                stored = max(roles.details(name).writes for name in roles.members(group))
                moved.append(float(max(0, stored - len(traffic.calls("put", started)))))
    told = f"writable {max(forming):.1f} s after the command, with the start of its servers"
    return [
        figure("add: used after it is writable", first_use, "s", target=USED_S, at_least=False, beside=told),
        figure("add: failed calls", failures, "calls", target=1, at_least=False),
        figure("add: stored in it beyond the puts", moved, "fragments", target=1, at_least=False),
    ]


def _count(name: str, count: int, beside: str) -> Figure:
    return figure(name, [float(count)], "calls", target=1, at_least=False, beside=beside)


def _admin(roles: Roles, *arguments: str) -> object:
    """What a command says, as JSON.  Raises BenchError with its words when it fails."""
    command = [sys.executable, "-m", "fabric", "admin", "--json"]
    command += ["--master", roles.master.removeprefix("tcp://"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=ADMIN_S)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def _not_moved(roles: Roles) -> str:
    """What the task that drains has still to move.  Raises BenchError when it has failed."""
    tasks = ask(roles.master, ListTasks(0), ASK_S)
    assert isinstance(tasks, TaskList)
    (task,) = [task for task in tasks.tasks if task.kind == "drain-group"]
    if task.state not in ("running", "done"):
        raise BenchError(f"draining {task.state}: {task.reason}")
    moved = task.state == "done" or 0 < task.total <= task.done
    return "" if moved else f"{task.done} of {task.total} bytes are moved"


def _left(roles: Roles, group: int) -> str:
    try:
        left = {name: roles.details(name).fragments for name in roles.members(group)}
    except FabricError as error:
        return error.message
    return f"fragments are left: {left}" if any(left.values()) else ""


def _unused(roles: Roles, group: int) -> str:
    try:
        writes = [roles.details(name).writes for name in roles.members(group)]
    except FabricError as error:
        return error.message
    return "" if all(writes) else f"group {group} has taken no fragment yet"
