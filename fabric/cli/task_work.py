"""Tasks of the master, as commands begin them, wait for them and show them."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import msgspec

from fabric.cli.admin_common import LOOK_S, MB, ask, ask_patiently
from fabric.cli.output import (
    duration_text,
    plain,
    print_json,
    share_bar,
    size_text,
)
from fabric.wire.messages import ListTasks, StartTask, TaskList, TaskStarted, TaskStatus

RUNNING, DONE = "running", "done"


def begin(master: str, as_json: bool, request: StartTask, wait: bool = False) -> None:
    """Have the master begin a task, and show it; with ``wait`` at its end.

    Ends the process with status 1 when the task that was waited for has not been done.
    """
    started = ask(master, request, TaskStarted)
    if not wait or request.dry_run:
        _show_started(started, as_json, request.dry_run)
        return
    if not as_json:
        _show_plan(started.plan)
    ended = wait_for(master, started.task)
    show_ended(ended, as_json, started)


def wait_for(master: str, task: TaskStatus) -> TaskStatus:
    """The task at its end, with a bar on a terminal until then.

    Raises click.ClickException when the master knows nothing of it any more, and the master's error when
    it stays away.
    """
    pace = Pace()
    try:
        with share_bar(what(task)) as show:
            while task.state == RUNNING:
                show(share_of(task), pace.note(task, time.monotonic()))
                time.sleep(LOOK_S)
                task = find(ask_patiently(master, ListTasks(0), TaskList).tasks, task.task)
            if task.state == DONE:
                show(1.0)
    except KeyboardInterrupt:
        click.echo(
            f"the task goes on; `fabric admin task cancel {task.task}` would end it,"
            f" `fabric admin task wait {task.task}` waits again",
            err=True,
        )
        raise
    return task


def find(tasks: list[TaskStatus], number: int) -> TaskStatus:
    """The task of this number.  Raises click.ClickException."""
    for task in tasks:
        if task.task == number:
            return task
    raise click.ClickException(f"the master knows no task {number}; `fabric admin tasks --all` lists them")


class Pace:
    """How fast a task goes, as seen while it is waited for."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def note(self, task: TaskStatus, now: float) -> str:
        """Rate, time left and what it waits for, to stand beside a bar."""
        if self._first is None:
            self._first = (now, task.done)
        since, before = self._first
        parts = []
        if task.unit == "bytes" and now > since and task.done > before:
            parts.append(f"{size_text(int((task.done - before) / (now - since)))}/s")
        if task.left_ms >= 0:
            parts.append(f"{duration_text(task.left_ms)} left")
        if task.reason:
            parts.append(task.reason)
        return ", ".join(parts)


def share_of(task: TaskStatus) -> float:
    """How much of it is done, 0 to 1."""
    if task.state == DONE:
        return 1.0
    return min(task.done / task.total, 1.0) if task.total else 0.0


def what(task: TaskStatus) -> str:
    """In words: ``drain group 2``."""
    words = {
        "drain-group": f"drain group {task.group}",
        "rebalance": "rebalance",
        "add-node": f"add {task.server} to group {task.group}",
        "replace-node": f"replace {task.server} by {task.replacement}",
        "drain-node": f"drain {task.server}",
        "repair": f"repair group {task.group}" if task.group else "repair all groups",
        "gc": "garbage collection",
        "accept-loss": f"accept the loss of group {task.group}",
    }
    return words.get(task.kind, task.kind)


def amount(task: TaskStatus) -> str:
    """How far it is: ``1.0 GiB of 2.0 GiB``."""
    if not task.total:
        return size_text(task.done) if task.unit == "bytes" and task.done else ""
    if task.unit == "bytes":
        return f"{size_text(task.done)} of {size_text(task.total)}"
    return f"{task.done} of {task.total} {task.unit}"


def limit(task: TaskStatus) -> str:
    """``50 MB/s``; empty when there is none."""
    return f"{task.bytes_per_s / MB:g} MB/s" if task.bytes_per_s else ""


def took(task: TaskStatus) -> str:
    """From its start to its end."""
    return duration_text(max(0, task.ended_at_ms - task.started_at_ms))


def show_ended(task: TaskStatus, as_json: bool, started: TaskStarted | None = None) -> None:
    """Say how it ended; ends the process with status 1 unless it was done."""
    if as_json:
        print_json(plain(task) if started is None else _as_json(started, task))
    else:
        far = amount(task)
        # What is over at once has no number.
        title = f"task {task.task}, {what(task)}" if task.task else what(task)
        text = f"{title}: {task.state}" + (f" after {took(task)}" if task.task else "")
        click.echo(text + (f", {far}" if far else "") + (f": {task.reason}" if task.reason else ""))
    if task.state != DONE:
        sys.exit(1)


def _show_started(started: TaskStarted, as_json: bool, dry_run: bool) -> None:
    task = started.task
    if as_json:
        print_json(_as_json(started, task))
        return
    if dry_run:
        click.echo("this would be done:" if started.changed or started.plan else "this runs already")
    _show_plan(started.plan)
    if dry_run:
        click.echo("nothing was done: this was a dry run")
    elif task.state != RUNNING:
        show_ended(task, False)
    else:
        click.echo(f"task {task.task}, {what(task)}: {'begun' if started.changed else 'runs already'}")
        click.echo(f"`fabric admin task wait {task.task}` waits for its end")


def _show_plan(plan: list[str]) -> None:
    for line in plan:
        click.echo(f"- {line}")


def _as_json(started: TaskStarted, task: TaskStatus) -> dict[str, Any]:
    return {**plain(msgspec.structs.replace(started, task=task))}
