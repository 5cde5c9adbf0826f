"""``fabric admin node``: look at one chunk server, add it to a group, put another in its place."""

from __future__ import annotations

import click

from fabric.cli.admin_common import (
    GROUP_NUMBER,
    cluster_of,
    dry_run_option,
    find_servers,
    rate_option,
    shared,
)
from fabric.cli.admin_tables import print_node
from fabric.cli.admin_tasks import bytes_per_s, wait_option
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
@rate_option
@dry_run_option
@wait_option
@shared
def add(
    master: str, as_json: bool, name: str, group: int, max_mb_s: float | None, dry_run: bool, wait: bool
) -> None:
    """Make the chunk server NAME, which runs and has no group, one more member of a group.

    It copies what the others hold first, while they serve readers and writers; the group then keeps one
    more copy of everything.
    """
    rate = bytes_per_s(max_mb_s)
    request = StartTask(0, "add-node", group, name, bytes_per_s=rate, dry_run=dry_run)
    begin(master, as_json, request, wait)


@node.command()
@click.argument("old")
@click.argument("new")
@rate_option
@dry_run_option
@wait_option
@shared
def replace(
    master: str, as_json: bool, old: str, new: str, max_mb_s: float | None, dry_run: bool, wait: bool
) -> None:
    """Put the chunk server NEW, which runs and has no group, in the place of OLD.

    NEW copies what the group holds, from all of its members; only then OLD leaves.  OLD may be dead already.
    Start NEW with --group 0, so that it waits for an order.
    """
    rate = bytes_per_s(max_mb_s)
    request = StartTask(0, "replace-node", 0, old, new, bytes_per_s=rate, dry_run=dry_run)
    begin(master, as_json, request, wait)


@node.command()
@click.argument("name")
@rate_option
@dry_run_option
@wait_option
@shared
def drain(master: str, as_json: bool, name: str, max_mb_s: float | None, dry_run: bool, wait: bool) -> None:
    """Put any chunk server that runs and has no group in the place of NAME; NAME may be stopped then."""
    rate = bytes_per_s(max_mb_s)
    begin(master, as_json, StartTask(0, "drain-node", 0, name, bytes_per_s=rate, dry_run=dry_run), wait)


COMMANDS = (node,)
