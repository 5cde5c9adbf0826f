"""``fabric admin tasks|task|events|rebalance|repair|gc``: the master's longer works, and its diary."""

from __future__ import annotations

import contextlib
import time

import click

from fabric.cli.admin_common import (
    GROUP_NUMBER,
    LOOK_S,
    MB,
    TIMEOUT_S,
    ask,
    ask_patiently,
    cluster_of,
    dry_run_option,
    rate_option,
    shared,
)
from fabric.cli.output import (
    duration_text,
    plain,
    print_json,
    print_json_line,
    print_table,
    size_text,
    time_text,
)
from fabric.cli.task_work import (
    RUNNING,
    amount,
    begin,
    find,
    limit,
    share_of,
    show_ended,
    wait_for,
    what,
)
from fabric.settings import LIST_LIMIT_MAX
from fabric.wire.messages import (
    CancelTask,
    ClusterStatus,
    EventList,
    EventRecord,
    ListEvents,
    ListTasks,
    StartTask,
    TaskList,
    TaskStarted,
    TaskStatus,
)

wait_option = click.option(
    "--wait", is_flag=True, help="Return when it has ended; status 1 unless it was done."
)


def bytes_per_s(max_mb_s: float | None) -> int:
    """The limit that ``--max-mb-s`` asks for; 0 for the master's own."""
    return 0 if max_mb_s is None else max(1, int(max_mb_s * MB))


@click.command()
@rate_option
@dry_run_option
@wait_option
@shared
def rebalance(master: str, as_json: bool, max_mb_s: float | None, dry_run: bool, wait: bool) -> None:
    """Even out how full the groups are.

    Moves fragments from full groups to emptier ones, online: readers and writers go on.  Not needed after a
    group was added, since new fragments prefer groups with room.  Repeating it while it runs sets its limit.
    """
    begin(
        master, as_json, StartTask(0, "rebalance", bytes_per_s=bytes_per_s(max_mb_s), dry_run=dry_run), wait
    )


@click.command()
@click.option("--group", type=GROUP_NUMBER, help="Only this group.  [default: all]")
@dry_run_option
@wait_option
@shared
def repair(master: str, as_json: bool, group: int | None, dry_run: bool, wait: bool) -> None:
    """Fetch fragments that chunk servers lack.

    Each compares what it holds with the catalog, and gets the rest from its peers.  Servers do so by
    themselves now and then; this does it now.  It reads indexes and not data: `fabric admin scrub start`
    reads every byte.
    """
    begin(master, as_json, StartTask(0, "repair", group=group or 0, dry_run=dry_run), wait)


# --- garbage ---------------------------------------------------------------------------------------


@click.group()
def gc() -> None:
    """Free fragments that no object names."""


@gc.command()
@dry_run_option
@wait_option
@shared
def run(master: str, as_json: bool, dry_run: bool, wait: bool) -> None:
    """Find fragments that no object names, in all groups, and delete them.

    That happens by itself too, from time to time.  The space in data files comes back by
    compaction: by itself when enough of a file is garbage, at once with `fabric admin compact`.
    """
    begin(master, as_json, StartTask(0, "gc", dry_run=dry_run), wait)


@gc.command("status")
@shared
def gc_status(master: str, as_json: bool) -> None:
    """Show deleted objects, fragments to delete, garbage in data files."""
    cluster = cluster_of(master)
    tasks = [task for task in ask(master, ListTasks(0), TaskList).tasks if task.kind == "gc"]
    if as_json:
        print_json(_garbage_json(cluster, tasks))
        return
    last = tasks[-1] if tasks else None
    rows = [
        ["deleted objects that still hold fragments", str(cluster.doomed)],
        ["fragments that some server must still delete", str(cluster.pending_deletes)],
        ["fragments without an object, found since the master's start", str(cluster.orphans_freed)],
        ["last collection that was asked for", _task_text(last) if last else "none"],
    ]
    print_table("Garbage", ["", ""], rows)
    servers = [
        [
            node.server,
            node.state,
            f"{node.audit:.0%}",
            str(node.pending_deletes),
            size_text(node.garbage_bytes),
        ]
        for node in cluster.nodes
    ]
    print_table("Chunk servers", ["server", "state", "compared", "to delete", "garbage"], servers, right=3)


def _garbage_json(cluster: ClusterStatus, tasks: list[TaskStatus]) -> dict[str, object]:
    return {
        "doomed": cluster.doomed,
        "pending_deletes": cluster.pending_deletes,
        "orphans_freed": cluster.orphans_freed,
        "task": plain(tasks[-1]) if tasks else None,
        "servers": [
            {
                "server": node.server,
                "audit": node.audit,
                "pending_deletes": node.pending_deletes,
                "garbage_bytes": node.garbage_bytes,
            }
            for node in cluster.nodes
        ],
    }


# --- tasks -----------------------------------------------------------------------------------------


@click.command()
@click.option("--all", "show_all", is_flag=True, help="Those that have ended lately too.")
@shared
def tasks(master: str, as_json: bool, show_all: bool) -> None:
    """List the tasks that run."""
    found = ask(master, ListTasks(0), TaskList).tasks
    shown = [task for task in found if show_all or task.state == RUNNING]
    if as_json:
        print_json(shown)
        return
    if not shown:
        click.echo("no task" if show_all else "no task runs; --all shows those that have ended")
        return
    rows = [
        [
            str(task.task),
            what(task),
            task.state,
            task.reason,
            time_text(task.started_at_ms),
            duration_text(task.left_ms) if task.state == RUNNING and task.left_ms >= 0 else "",
            limit(task),
            amount(task),
            f"{share_of(task):.0%}",
        ]
        for task in shown
    ]
    columns = ["task", "does", "state", "reason", "begun", "left", "limit", "so far", "share"]
    print_table("Tasks", columns, rows, right=4)


@click.group()
def task() -> None:
    """Wait for one task, or end it."""


_number = click.argument("number", metavar="TASK", type=click.IntRange(min=1))


@task.command("wait")
@_number
@shared
def wait_task(master: str, as_json: bool, number: int) -> None:
    """Return when TASK has ended; status 1 when it failed or was cancelled.  A bar on a terminal.

    To end this command does not end the task.  While the master is away it is asked again, for 30 s.
    """
    known = find(ask_patiently(master, ListTasks(0), TaskList, TIMEOUT_S).tasks, number)
    show_ended(wait_for(master, known), as_json)


@task.command("cancel")
@_number
@shared
def cancel(master: str, as_json: bool, number: int) -> None:
    """Do no more of TASK.  What was moved stays moved.  Safe to repeat."""
    answer = ask(master, CancelTask(0, number), TaskStarted)
    if as_json:
        print_json(plain(answer))
    elif answer.changed:
        click.echo(f"task {answer.task.task}, {what(answer.task)}: cancelled")
    else:
        click.echo(f"task {answer.task.task}, {what(answer.task)}: was {answer.task.state} already")


def _task_text(found: TaskStatus) -> str:
    parts = [f"task {found.task}", found.state, time_text(found.started_at_ms), amount(found), found.reason]
    return ", ".join(part for part in parts if part)


# --- events ----------------------------------------------------------------------------------------


@click.command()
@click.option("--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option(
    "--limit",
    type=click.IntRange(1, LIST_LIMIT_MAX),
    default=50,
    show_default=True,
    help="At most so many; the newest.",
)
@shared
def events(master: str, as_json: bool, follow: bool, limit: int) -> None:
    """Show what the master did lately, and why.

    The newest last.  --json: one list; with --follow one object a line.
    """
    found = ask(master, ListEvents(0, 0, limit), EventList).events
    if not follow:
        if as_json:
            print_json(found)
        for event in found if not as_json else []:
            click.echo(_event_text(event))
        return
    with contextlib.suppress(KeyboardInterrupt):
        after = 0
        while True:
            for event in found:
                print_json_line(event) if as_json else click.echo(_event_text(event))
                after = event.number
            time.sleep(LOOK_S)
            found = ask_patiently(master, ListEvents(0, after, LIST_LIMIT_MAX), EventList).events


def _event_text(event: EventRecord) -> str:
    return f"{event.number:>6}  {time_text(event.at_ms)}  {event.kind:<8}  {event.subject:<12}  {event.text}"


COMMANDS = (tasks, task, events, rebalance, repair, gc)
