"""``fabric master``: the master."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fabric.cli.options import HOST_PORT, load_settings


@click.command()
@click.option(
    "--listen", type=HOST_PORT, default="127.0.0.1:7400", show_default=True, help="Where requests arrive."
)
@click.option(
    "--publish",
    type=HOST_PORT,
    default=None,
    help="Where changes are published.  [default: the port of --listen + 1]",
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory of its store."
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 16),
    default=3,
    show_default=True,
    help="Members of each group that is made from now on.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), default=None, help="TOML file with a [settings] table."
)
def command(listen: str, publish: str | None, data: Path, replicas: int, config: Path | None) -> None:
    """Run the master: it knows every name, and which servers hold what.

    The first start creates the data directory.  A store that is damaged is not opened.
    """
    import logging
    import random
    import time

    from fabric import __version__
    from fabric.master.leveldb_store import open_store
    from fabric.master.role import MasterRole
    from fabric.master.store import StoreError, store_worker
    from fabric.node.lanes import Lane
    from fabric.node.zmq_loop import BindFailed, ZmqLoop

    logging.basicConfig(level=logging.INFO, format="%(asctime)s master %(levelname)s %(message)s")
    settings = load_settings(config)
    if publish is None:
        host, _, port = listen.rpartition(":")
        publish = f"{host}:{int(port) + 1}"
    try:
        store = open_store(data)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    role = MasterRole(
        store=store,
        settings=settings,
        rng=random.Random(),
        replicas=replicas,
        wall_offset_s=time.time() - time.monotonic(),
        version=__version__,
    )
    try:
        loop = ZmqLoop(role, listen=listen, publish=publish, lanes={"store": Lane(store_worker(store))})
    except BindFailed as error:
        store.close()
        raise click.ClickException(error.message) from error
    status = loop.run()
    store.close()
    sys.exit(status)
