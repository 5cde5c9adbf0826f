"""``fabric registry``: the HTTP front for container tools."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fabric.cli.options import HOST_PORT, load_settings

if TYPE_CHECKING:
    from fabric.settings import Settings


@click.command()
@click.option(
    "--http",
    type=HOST_PORT,
    default="127.0.0.1:5000",
    show_default=True,
    help="Where container tools connect.",
)
@click.option("--proxy", type=HOST_PORT, default="127.0.0.1:7420", show_default=True, help="The proxy.")
@click.option(
    "--config", type=click.Path(path_type=Path), default=None, help="TOML file with a [settings] table."
)
def command(http: str, proxy: str, config: Path | None) -> None:
    """Run a registry: it speaks OCI Distribution over HTTP and keeps everything in the fabric.

    A registry process keeps no state; run as many as you like behind one name.
    """
    import uvloop

    from fabric.node.process import set_up_process

    set_up_process()
    settings = load_settings(config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s registry %(levelname)s %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(http, proxy, settings))


async def _run(http: str, proxy: str, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way may finish."""
    from fabric.driver.fabric_store import FabricStore
    from fabric.driver.registry.http import serve

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    host, _, port = http.removeprefix("tcp://").rpartition(":")
    store = FabricStore(proxy=proxy, settings=settings)
    await store.start()
    try:
        try:
            server = await serve(store, settings, host.strip("[]"), int(port))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise click.ClickException(f"cannot listen on {host}:{port}: {reason}") from error
        logging.info("listening on http://%s:%s, storing through %s", host, port, proxy)
        await stopping.wait()
        await server.cleanup()
    finally:
        await store.close()
