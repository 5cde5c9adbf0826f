"""``fabric admin``: what the master knows of nodes and groups, and the operator's word to it.

Exit status: 0 done, 1 refused or failed, 2 wrong usage.  ``--json`` prints the fields of
``ClusterStatus`` and its parts by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import click

from fabric.cli.options import HOST_PORT
from fabric.cli.output import duration_text, plain, print_json, print_table, reported_errors, size_text
from fabric.wire.messages import (
    ClusterStatus,
    GetStatus,
    GroupStatus,
    NodeStatus,
    ServerStatusSet,
    SetServerStatus,
)

TIMEOUT_S = 3.0


def _shared(function: Callable[..., None]) -> Callable[..., None]:
    """The options of every command here, which may stand before or behind its name."""

    @click.option("--master", type=HOST_PORT, help="The master.  [default: 127.0.0.1:7400]")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_context
    def with_shared(ctx: click.Context, /, master: str | None, as_json: bool, **rest: Any) -> None:
        given = ctx.obj
        with reported_errors():
            function(master or given["master"] or "tcp://127.0.0.1:7400", as_json or given["as_json"], **rest)

    return update_wrapper(with_shared, function)


@click.group()
@click.option("--master", type=HOST_PORT, help="The master.  [default: 127.0.0.1:7400]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, master: str | None, as_json: bool) -> None:
    """Look at nodes and groups, and direct them."""
    ctx.obj = {"master": master, "as_json": as_json}


@command.command()
@_shared
def status(master: str, as_json: bool) -> None:
    """Show the whole cluster."""
    cluster = _cluster(master)
    if as_json:
        print_json(plain(cluster))
        return
    click.echo(
        f"master {master.removeprefix('tcp://')}  version {cluster.version}  term {cluster.term}"
        f"  up {duration_text(cluster.uptime_ms)}  deletes under way {cluster.pending_deletes}"
    )
    _print_groups(cluster.groups)
    _print_nodes(cluster.nodes)


@command.command()
@_shared
def nodes(master: str, as_json: bool) -> None:
    """List the chunk servers."""
    cluster = _cluster(master)
    if as_json:
        print_json(cluster.nodes)
    else:
        _print_nodes(cluster.nodes)


@command.command()
@_shared
def groups(master: str, as_json: bool) -> None:
    """List the replica groups."""
    cluster = _cluster(master)
    if as_json:
        print_json(cluster.groups)
    else:
        _print_groups(cluster.groups)


@command.group()
def node() -> None:
    """Look at one chunk server."""


@node.command()
@click.argument("name")
@_shared
def show(master: str, as_json: bool, name: str) -> None:
    """Show all that is known of the chunk server NAME."""
    known = _cluster(master).nodes
    found = next((server for server in known if server.server == name), None)
    if found is None:
        names = ", ".join(server.server for server in known) or "none"
        raise click.ClickException(f"no chunk server {name!r}; known: {names}")
    _print_node(found, as_json)


@command.command("set-status")
@click.argument("name")
@click.argument("status", type=click.Choice(["rw", "ro"]))
@_shared
def set_status(master: str, as_json: bool, name: str, status: str) -> None:
    """Let the chunk server NAME take writes (rw), or not (ro).

    Its whole group takes no writes while one member is ro.  Safe to repeat.
    """
    from fabric.node.ask import ask

    answer = ask(master, SetServerStatus(0, name, status), TIMEOUT_S)
    assert isinstance(answer, ServerStatusSet)
    if as_json:
        print_json({"changed": answer.changed, "node": plain(answer.node)})
    elif answer.changed:
        click.echo(f"{name} is to be {status} now")
    else:
        click.echo(f"{name} was to be {status} already")


def _cluster(master: str) -> ClusterStatus:
    # Here, and not above, so that --help and usage errors do not wait for ZeroMQ.
    from fabric.node.ask import ask

    answer = ask(master, GetStatus(0), TIMEOUT_S)
    assert isinstance(answer, ClusterStatus)
    return answer


def _print_groups(groups: list[GroupStatus]) -> None:
    rows = [
        [
            str(group.group),
            group.state,
            group.reason,
            ", ".join(group.members),
            str(group.epoch),
            str(group.fragments),
            size_text(group.live_bytes),
            size_text(group.free_bytes),
        ]
        for group in groups
    ]
    columns = ["group", "state", "reason", "members", "epoch", "fragments", "stored", "free"]
    print_table("Groups", columns, rows, right=4)


def _print_nodes(nodes: list[NodeStatus]) -> None:
    rows = [
        [
            node.server,
            node.state,
            node.reason,
            node.endpoint.removeprefix("tcp://"),
            str(node.group),
            duration_text(node.seen_ms_ago) if node.state != "INIT" or node.seen_ms_ago else "never",
            str(node.fragments),
            size_text(node.live_bytes),
            size_text(node.free_bytes),
        ]
        for node in nodes
    ]
    columns = ["server", "state", "reason", "address", "group", "seen ago", "fragments", "stored", "free"]
    numbers = 5
    if any(node.quarantined for node in nodes):
        columns.append("damaged")
        numbers += 1
        rows = [[*row, str(node.quarantined)] for row, node in zip(rows, nodes, strict=True)]
    print_table("Chunk servers", columns, rows, right=numbers)


def _print_node(node: NodeStatus, as_json: bool) -> None:
    if as_json:
        print_json(plain(node))
        return
    shown = plain(node)
    for name in ("live_bytes", "free_bytes", "capacity_bytes", "pending_bytes", "garbage_bytes"):
        shown[name.replace("_bytes", "")] = size_text(shown.pop(name))
    shown["seen ago"] = duration_text(shown.pop("seen_ms_ago"))
    rows = [[name.replace("_", " "), str(value)] for name, value in shown.items()]
    print_table(node.server, ["", ""], rows)
