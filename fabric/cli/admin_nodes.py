"""``fabric admin node``: look at one chunk server, add it to a group, put another in its place."""

from __future__ import annotations

import click

from fabric.cli.admin_common import (
    GROUP_NUMBER,
    cluster_of,
    dry_run_option,
    find_servers,
    shared,
)
from fabric.cli.admin_tables import print_node
from fabric.cli.admin_tasks import wait_option
from fabric.cli.task_work import begin
from fabric.wire.messages import StartTask


@click.group()
def node() -> None:
    """Look at, add and replace chunk servers."""


@node.command()
@click.argument("name")
@shared
def show(master: str, as_json: bool, name: str) -> None:
    """Show all that is known of the chunk server NAME."""
    (found,) = find_servers(cluster_of(master), [name])
    print_node(found, as_json)


@node.command()
@click.argument("name")
@click.option("--group", type=GROUP_NUMBER, required=True, help="The group that it is to be a member of.")
@dry_run_option
@wait_option
@shared
def add(master: str, as_json: bool, name: str, group: int, dry_run: bool, wait: bool) -> None:
    """Make the chunk server NAME one more member of a group.

    NAME has no group; it may be started later.  It copies what the others hold first, while they serve
    readers and writers; the group then keeps one more copy of everything.
    """
    request = StartTask(0, "add-node", group, name, dry_run=dry_run)
    begin(master, as_json, request, wait)


@node.command()
@click.argument("old")
@click.argument("new")
@dry_run_option
@wait_option
@shared
def replace(master: str, as_json: bool, old: str, new: str, dry_run: bool, wait: bool) -> None:
    """Put the chunk server NEW in the place of OLD.

    NEW copies what the group holds, from all of its members; only then OLD leaves.  OLD may be dead already.
    NEW may be started later: it takes its place when it appears.  Afterwards OLD is retired: stop it, and
    wipe its data directory before it serves again.
    """
    request = StartTask(0, "replace-node", 0, old, new, dry_run=dry_run)
    begin(master, as_json, request, wait)


@node.command()
@click.argument("name")
@dry_run_option
@wait_option
@shared
def drain(master: str, as_json: bool, name: str, dry_run: bool, wait: bool) -> None:
    """Put a chunk server that is free in the place of NAME.

    The one with the most room that runs and has no group.  Afterwards NAME is retired: stop it, and wipe its
    data directory before it serves again.
    """
    begin(master, as_json, StartTask(0, "drain-node", 0, name, dry_run=dry_run), wait)


COMMANDS = (node,)
