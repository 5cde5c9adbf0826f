"""``fabric registry``: the HTTP front for container tools.

SIGHUP makes it read its files again, and the certificate, passwords, keys and secrets that they name.  A
file that cannot be used changes nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fabric.cli.options import HOST_PORT, BadFile, load_settings

if TYPE_CHECKING:
    from aiohttp.web import AppRunner

    from fabric.driver.registry.access.gate import Gate
    from fabric.driver.registry.access.load import Access
    from fabric.settings import Settings


ACCESS_FILE = click.Path(dir_okay=False, path_type=Path)

SUBCOMMANDS = {
    "check-access": "fabric.cli.check_access:command",
    "gc": "fabric.cli.registry_gc:command",
    "history": "fabric.cli.registry_undelete:history",
    "hooks": "fabric.cli.registry_hooks:command",
    "mirrors": "fabric.cli.registry_mirrors:command",
    "push-blob": "fabric.cli.registry_push:command",
    "quota": "fabric.cli.registry_quota:command",
    "restore": "fabric.cli.registry_undelete:restore",
    "retention": "fabric.cli.registry_retention:command",
    "trash": "fabric.cli.registry_undelete:trash",
}
"""Commands about a registry's content, and where each is."""


class BadAccessFile(BadFile):
    """An access file that cannot be used."""


class RegistryGroup(click.Group):
    """Without a subcommand it runs the role; each subcommand is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module, _, attribute = SUBCOMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=RegistryGroup, invoke_without_command=True)
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
@click.option(
    "--access",
    type=ACCESS_FILE,
    default=None,
    help="TOML file: logins, rules, TLS, limits.  [default: everybody may do everything]",
)
@click.option(
    "--hooks",
    "hooks_file",
    type=ACCESS_FILE,
    default=None,
    help="TOML file: who is told of pushes, pulls and deletions.",
)
@click.option(
    "--mirrors",
    "mirrors_file",
    type=ACCESS_FILE,
    default=None,
    help="TOML file: repositories that come from other registries.",
)
@click.option("--v1", is_flag=True, help="Answer clients of the first protocol too (Docker up to 1.5).")
@click.option(
    "--share-port",
    is_flag=True,
    help="Listen beside other registries with this flag; the system divides connections among them.",
)
@click.pass_context
def command(
    context: click.Context,
    http: str,
    proxy: str,
    config: Path | None,
    access: Path | None,
    hooks_file: Path | None,
    mirrors_file: Path | None,
    v1: bool,
    share_port: bool,
) -> None:
    """Run a registry: it speaks OCI Distribution over HTTP and keeps everything in the fabric.

    A registry process keeps no state; run as many as you like behind one name.  SIGHUP makes it read
    its files again.
    """
    if context.invoked_subcommand is not None:
        return
    import uvloop

    from fabric.cli.registry_hooks import hooks_of, load_hooks_file, read_hooks_again
    from fabric.cli.registry_mirrors import mirrors_of, read_mirrors_again
    from fabric.driver.registry.access.gate import Gate
    from fabric.driver.registry.http import serve
    from fabric.node.process import set_up_process

    readers: list[Callable[[], None]] = []
    hooks = hooks_of(load_hooks_file(hooks_file) if hooks_file is not None else None, http)
    if hooks_file is not None:
        readers.append(partial(read_hooks_again, hooks, hooks_file))
    mirrors = mirrors_of(mirrors_file)
    if mirrors_file is not None:
        readers.append(partial(read_mirrors_again, mirrors, mirrors_file))
    gate = Gate(load_access_file(access) if access is not None else None)
    if access is not None:
        readers.append(partial(_read_again, gate, access))
    set_up_process()
    settings = load_settings(config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s registry %(levelname)s %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serve_it = partial(serve, gate=gate, v1=v1, hooks=hooks, mirrors=mirrors, share_port=share_port)
        runner.run(_run(http, proxy, settings, gate, readers, serve_it))


def load_access_file(path: Path) -> Access:
    """What an access file says.  Raises BadAccessFile: one line with file, key and reason."""
    from fabric.driver.registry.access.load import AccessFileError, load_access

    try:
        return load_access(path)
    except AccessFileError as error:
        raise BadAccessFile(str(error)) from error


def _read_again(gate: Gate, path: Path) -> None:
    """Let what the file says now hold; what it said before, if it cannot be used."""
    from fabric.driver.registry.access.load import AccessFileError, load_access

    try:
        gate.replace(load_access(path))
    except (AccessFileError, ValueError) as error:
        logging.error("the access file is not taken, the one before holds: %s", error)
    else:
        logging.info("the access file %s was read again", path)


def _call_all(readers: Sequence[Callable[[], None]]) -> None:
    for read in readers:
        read()


async def _run(
    http: str,
    proxy: str,
    settings: Settings,
    gate: Gate,
    readers: Sequence[Callable[[], None]],
    serve: Callable[..., Awaitable[AppRunner]],
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way may finish.  ``readers`` are called at SIGHUP."""
    from fabric.driver.fabric_store import FabricStore

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if readers:
        loop.add_signal_handler(signal.SIGHUP, _call_all, readers)
    host, _, port = http.removeprefix("tcp://").rpartition(":")
    store = FabricStore(proxy=proxy, settings=settings)
    await store.start()
    try:
        try:
            server = await serve(store, settings, host.strip("[]"), int(port), watch=store.watch)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise click.ClickException(f"cannot listen on {host}:{port}: {reason}") from error
        scheme = "https" if gate.tls() is not None else "http"
        logging.info("listening on %s://%s:%s, storing through %s", scheme, host, port, proxy)
        await stopping.wait()
        await server.cleanup()
    finally:
        await store.close()
