"""``fabric proxy``: one proxy."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fabric.cli.options import HOST_PORT, load_settings


@click.command()
@click.option(
    "--listen", type=HOST_PORT, default="127.0.0.1:7420", show_default=True, help="Where drivers connect."
)
@click.option("--master", type=HOST_PORT, default="127.0.0.1:7400", show_default=True, help="The master.")
@click.option(
    "--master-publish",
    type=HOST_PORT,
    default=None,
    help="Where the master publishes.  [default: the master's port + 1]",
)
@click.option("--name", default=None, help="Name in the master's log.  [default: proxy@LISTEN]")
@click.option(
    "--config", type=click.Path(path_type=Path), default=None, help="TOML file with a [settings] table."
)
def command(
    listen: str, master: str, master_publish: str | None, name: str | None, config: Path | None
) -> None:
    """Run a proxy: it takes fragments from drivers and writes them to every replica.

    A proxy keeps no state; run as many as you like and kill them when you like.
    """
    import random

    from fabric import __version__
    from fabric.node.zmq_loop import BindFailed, ZmqLoop
    from fabric.proxy.role import ProxyRole

    if master_publish is None:
        host, _, port = master.rpartition(":")
        master_publish = f"{host}:{int(port) + 1}"
    settings = load_settings(config)
    role = ProxyRole(
        name=name or f"proxy@{listen.removeprefix('tcp://')}",
        master=master,
        settings=settings,
        rng=random.Random(),
        version=__version__,
    )
    try:
        loop = ZmqLoop(role, listen=listen, subscribe=[master_publish], shares_memory=settings.near_writes)
    except BindFailed as error:
        raise click.ClickException(error.message) from error
    sys.exit(loop.run())
