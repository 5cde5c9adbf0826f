"""``fabric admin``: what the master and the chunk servers know, and the operator's word to them.

Exit status: 0 done, 1 refused or failed, 2 wrong usage.  ``--json`` prints fields of messages by name.
Its commands live in files of their own, by what they are about.
"""

from __future__ import annotations

import click

from fabric.cli import admin_groups, admin_nodes, admin_route, admin_servers, admin_tasks
from fabric.cli.admin_common import ask, cluster_of, shared
from fabric.cli.admin_tables import cluster_tree, print_groups, print_nodes, tree_json
from fabric.cli.options import HOST_PORT
from fabric.cli.output import duration_text, plain, print_json, print_tree
from fabric.wire.messages import ServerStatusSet, SetServerStatus

SECTIONS = {
    "What is": ("status", "topology", "nodes", "groups", "tasks", "events", "details", "io-status", "route"),
    "Groups and chunk servers": ("group", "node", "set-status", "rebalance"),
    "Upkeep": ("repair", "scrub", "compact", "gc", "check-disk", "kill-pending", "task"),
}


class Sectioned(click.Group):
    """Lists its commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``."""
        width = max(map(len, self.commands))
        for section, names in SECTIONS.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(formatter.width - width - 6))
                for name in names
            ]
            with formatter.section(section):
                formatter.write_dl(rows)


@click.group(cls=Sectioned)
@click.option("--master", type=HOST_PORT, help="The master.  [default: 127.0.0.1:7400]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, master: str | None, as_json: bool) -> None:
    """Look at nodes and groups, and direct them.

    Every command may be repeated: what is done already, or under way, is found and told.  Exit status: 0
    done, 1 refused or failed, 2 wrong usage.
    """
    ctx.obj = {"master": master, "as_json": as_json}


@command.command()
@shared
def status(master: str, as_json: bool) -> None:
    """Show the whole cluster."""
    cluster = cluster_of(master)
    if as_json:
        print_json(plain(cluster))
        return
    click.echo(
        f"master {master.removeprefix('tcp://')}  version {cluster.version}  term {cluster.term}"
        f"  up {duration_text(cluster.uptime_ms)}  deletes under way {cluster.pending_deletes}"
    )
    print_groups(cluster.groups)
    print_nodes(cluster.nodes)


@command.command()
@shared
def topology(master: str, as_json: bool) -> None:
    """Show groups and their chunk servers as a tree.

    With the free room on each disk, and the reason for each state.
    """
    cluster = cluster_of(master)
    if as_json:
        print_json(tree_json(cluster))
    else:
        print_tree(cluster_tree(cluster, f"master {master.removeprefix('tcp://')}, term {cluster.term}"))


@command.command()
@shared
def nodes(master: str, as_json: bool) -> None:
    """List the chunk servers."""
    cluster = cluster_of(master)
    if as_json:
        print_json(cluster.nodes)
    else:
        print_nodes(cluster.nodes)


@command.command()
@shared
def groups(master: str, as_json: bool) -> None:
    """List the replica groups."""
    cluster = cluster_of(master)
    if as_json:
        print_json(cluster.groups)
    else:
        print_groups(cluster.groups)


@command.command("set-status")
@click.argument("name")
@click.argument("status", type=click.Choice(["rw", "ro"]))
@shared
def set_status(master: str, as_json: bool, name: str, status: str) -> None:
    """Let the chunk server NAME take writes (rw), or not (ro).

    Its whole group takes no writes while one member is ro.  Safe to repeat.
    """
    answer = ask(master, SetServerStatus(0, name, status), ServerStatusSet)
    if as_json:
        print_json({"changed": answer.changed, "node": plain(answer.node)})
    elif answer.changed:
        click.echo(f"{name} is to be {status} now")
    else:
        click.echo(f"{name} was to be {status} already")


for family in (admin_groups, admin_nodes, admin_tasks, admin_servers, admin_route):
    for member in family.COMMANDS:
        command.add_command(member)
assert sorted(command.commands) == sorted(name for names in SECTIONS.values() for name in names)
