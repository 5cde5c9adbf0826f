"""``fabric admin group``: make groups, empty them, look at one."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from fabric.cli.admin_common import (
    GROUP_NUMBER,
    ask,
    cluster_of,
    dry_run_option,
    rate_option,
    shared,
    yes_option,
)
from fabric.cli.admin_tables import places_free, print_groups, print_nodes
from fabric.cli.admin_tasks import bytes_per_s, wait_option
from fabric.cli.output import plain, print_json
from fabric.cli.ports import NoFreePort, free_ports_from, next_port
from fabric.cli.task_work import DONE, RUNNING, begin
from fabric.settings import CHUNK_PORT
from fabric.wire.messages import (
    AddGroup,
    CancelTask,
    ClusterStatus,
    GroupAdded,
    GroupStatus,
    ListTasks,
    StartTask,
    TaskList,
    TaskStarted,
)

_group_argument = click.argument("number", metavar="GROUP", type=GROUP_NUMBER)


@click.group()
def group() -> None:
    """Make groups, empty them, look at one."""


@group.command()
@_group_argument
@shared
def show(master: str, as_json: bool, number: int) -> None:
    """Show GROUP and its chunk servers."""
    cluster = cluster_of(master)
    found = _find(cluster, number)
    names = {*found.members, *found.learners}
    servers = [node for node in cluster.nodes if node.server in names or node.group == number]
    if as_json:
        print_json({**plain(found), "nodes": servers})
        return
    print_groups([found])
    if found.learners:
        click.echo(f"become members when they have copied everything: {', '.join(found.learners)}")
    print_nodes(servers)


@group.command()
@click.argument("number", metavar="[GROUP]", type=GROUP_NUMBER, required=False)
@click.option(
    "--replicas", type=click.IntRange(1, 16), help="Copies of each fragment.  [default: the master's]"
)
@dry_run_option
@shared
def add(master: str, as_json: bool, number: int | None, replicas: int | None, dry_run: bool) -> None:
    """Make room for more: let there be a group for new chunk servers.

    Prints how to start its servers; when all have come it takes fragments.  No data moves.
    Without GROUP, the first group that nobody has joined yet or else a new one: repeating it adds no other.
    """
    added = ask(master, AddGroup(0, number or 0, replicas or 0, dry_run), GroupAdded)
    commands = start_commands(cluster_of(master), added.group, master)
    if as_json:
        print_json({**plain(added), "commands": commands})
        return
    found = added.group
    there = "would be new" if dry_run and added.changed else "is new" if added.changed else "is there already"
    click.echo(f"group {found.group} {there}: {len(found.members)} of {found.replicas} servers")
    if commands:
        click.echo("its chunk servers, each on a disk (and machine) of its own, to be started with:")
    for line in commands:
        click.echo(f"  {line}")


@group.command()
@_group_argument
@rate_option
@click.option("--cancel", is_flag=True, help="Let GROUP take fragments again; what was moved stays moved.")
@dry_run_option
@wait_option
@shared
def drain(
    master: str, as_json: bool, number: int, max_mb_s: float | None, cancel: bool, dry_run: bool, wait: bool
) -> None:
    """Move everything out of GROUP to other groups, online; afterwards its servers may be stopped.

    GROUP takes no new fragments from now on, also when it is empty, until --cancel.  Readers and writers do
    not notice.  Repeating it while it runs sets its limit.
    """
    if not cancel:
        rate = bytes_per_s(max_mb_s)
        begin(master, as_json, StartTask(0, "drain-group", number, bytes_per_s=rate, dry_run=dry_run), wait)
        return
    if dry_run or wait or max_mb_s is not None:
        raise click.UsageError("--cancel stands alone")
    tasks = ask(master, ListTasks(0), TaskList).tasks
    for task in reversed(tasks):
        if task.kind == "drain-group" and task.group == number and task.state in (RUNNING, DONE):
            answer = ask(master, CancelTask(0, task.task), TaskStarted)
            if as_json:
                print_json(plain(answer))
            else:
                click.echo(f"group {number} takes new fragments again; what was moved stays moved")
            return
    raise click.ClickException(f"group {number} is not being drained")


@group.command("accept-loss")
@_group_argument
@yes_option
@dry_run_option
@shared
def accept_loss(master: str, as_json: bool, number: int, yes: bool, dry_run: bool) -> None:
    """Let GROUP be empty whose data directories are all gone, so that it can be used again.

    A group with nothing but new directories takes no writes until then: to an operator who
    mounted the wrong disks it would look like an empty group.  Mount the right ones if there are any: this
    cannot be undone.  Objects with fragments in GROUP cannot be read afterwards.
    """
    if not yes and not dry_run:
        plan = ask(master, StartTask(0, "accept-loss", number, dry_run=True), TaskStarted).plan
        for line in plan:
            click.echo(f"- {line}", err=True)
        click.confirm(f"Is everything in group {number} lost for good?", abort=True, err=True)
    begin(master, as_json, StartTask(0, "accept-loss", number, dry_run=dry_run))


def start_commands(cluster: ClusterStatus, group: GroupStatus, master: str) -> list[str]:
    """A line for each server that the group lacks.

    On one machine they can be run as they are; else HOST stands for the machine that each runs on.
    """
    taken = {node.server for node in cluster.nodes}
    names = [f"chunk-{number}" for number in range(1, len(taken) + group.replicas + 1)]
    free = [name for name in names if name not in taken][: places_free(group)]
    if not free:
        return []
    host = urlsplit(master).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return _local_commands(cluster, group, master, free)
    at = master.removeprefix("tcp://")
    return [
        f"fabric chunk --name {name} --listen 0.0.0.0:{CHUNK_PORT} --advertise HOST:{CHUNK_PORT}"
        f" --master {at} --data /srv/{name} --group {group.group}"
        for name in free
    ]


def _local_commands(cluster: ClusterStatus, group: GroupStatus, master: str, names: list[str]) -> list[str]:
    used = [node.endpoint for node in cluster.nodes if node.endpoint]
    first = next_port(max(used, key=_port), 1) if used else f"tcp://127.0.0.1:{CHUNK_PORT}"
    try:
        endpoints = free_ports_from(f"tcp://127.0.0.1:{_port(first)}", len(names), used)
    except NoFreePort as error:
        raise click.ClickException(str(error)) from error
    return [
        f"fabric chunk --name {name} --listen {endpoint.removeprefix('tcp://')}"
        f" --master {master.removeprefix('tcp://')} --data {name} --group {group.group}"
        for name, endpoint in zip(names, endpoints, strict=True)
    ]


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def _find(cluster: ClusterStatus, number: int) -> GroupStatus:
    """Raises click.ClickException that names the groups there are."""
    for found in cluster.groups:
        if found.group == number:
            return found
    known = ", ".join(str(found.group) for found in cluster.groups) or "none"
    raise click.ClickException(f"no group {number}; known: {known}")


COMMANDS = (group,)
