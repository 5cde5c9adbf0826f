"""``fabric chunk``: one chunk server."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fabric.cli.options import HOST_PORT, load_settings

if TYPE_CHECKING:
    import random

    from fabric.chunk.engine import Engine
    from fabric.settings import Settings

IDENTITY_FORMAT = 1
FRAGMENTS = "fragments"
"""Directory of the data files."""


class Identity(msgspec.Struct, forbid_unknown_fields=True):
    """Content of ``server.json``: whose directory this is."""

    format: int
    name: str
    uuid: str
    """Hexadecimal, 32 digits; new for each directory."""


def load_identity(directory: Path, name: str, has_data: bool) -> Identity:
    """Read who this directory belongs to; a new one becomes ``name``'s.

    Raises click.ClickException when it belongs to another server, or is not understood.
    """
    import uuid

    from fabric.errors import FabricError
    from fabric.node.os_disk import write_durably

    path = directory / "server.json"
    try:
        identity = msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError as error:
        if has_data:
            raise click.ClickException(
                f"{directory} holds fragments, but {path.name}, which says whose, is gone. Put it back."
            ) from error
        identity = Identity(IDENTITY_FORMAT, name, uuid.uuid4().hex)
        try:
            write_durably(path, msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
        except FabricError as failure:
            raise click.ClickException(failure.message) from failure
        return identity
    except (OSError, msgspec.DecodeError) as error:
        raise click.ClickException(f"cannot read {path}: {error}") from error
    if identity.format != IDENTITY_FORMAT:
        raise click.ClickException(f"{path} has format {identity.format}, this is {IDENTITY_FORMAT}")
    if identity.name != name:
        raise click.ClickException(f"{directory} belongs to {identity.name}, not to {name}")
    return identity


PROGRESS_LOG_S = 5.0
"""Between two lines about a start that takes long."""
PROGRESS_BAR_S = 0.5
"""A start that takes longer shows a bar on a terminal."""


@contextlib.contextmanager
def start_progress(clock: Callable[[], float]) -> Iterator[Callable[[int, int], None]]:
    """Tells how far reading the data files is: with a bar on a terminal, else with lines in the log."""
    import logging

    from fabric.cli.output import in_steps, share_bar

    log = logging.getLogger("fabric")
    is_terminal = sys.stderr.isatty()
    told_at = clock()
    show: Callable[[int, int], None] | None = None
    with contextlib.ExitStack() as stack:

        def on_bytes(done: int, total: int) -> None:
            nonlocal told_at, show
            if show is not None:
                show(done, total)
                return
            now = clock()
            if now - told_at < (PROGRESS_BAR_S if is_terminal else PROGRESS_LOG_S):
                return
            told_at = now
            if is_terminal:
                show = in_steps(stack.enter_context(share_bar("reading data files")))
            else:
                text = "reading data files: %d of %d MiB, %d %%"
                log.info(text, done >> 20, total >> 20, 100 * done // total)

        yield on_bytes


def _open_engine(
    directory: Path, name: str, settings: Settings, secret: random.Random
) -> tuple[Engine, Identity]:
    """The engine of this directory, and whose it is.  Raises click.ClickException."""
    import time

    from fabric.chunk.engine import Engine
    from fabric.chunk.leveldb_index import LevelDbHome
    from fabric.errors import FabricError
    from fabric.node.os_disk import OsDisk

    try:
        disk = OsDisk(directory / FRAGMENTS)
        identity = load_identity(directory, name, bool(disk.names()))
        with start_progress(time.monotonic) as on_bytes:
            engine = Engine(
                disk,
                LevelDbHome(directory / "index"),
                uuid=bytes.fromhex(identity.uuid),
                settings=settings,
                rng=secret,
                wall_ms=lambda: time.time_ns() // 1_000_000,
                clock_us=lambda: time.monotonic_ns() // 1000,
                on_bytes=on_bytes,
            )
    except FabricError as error:
        raise click.ClickException(error.message) from error
    return engine, identity


TOOLS = {
    "status": "Show what a running server holds, and how its upkeep is.",
    "scrub": "Have a running server read and verify every record.",
    "compact": "Have a running server give back the space of deleted fragments.",
    "check": "Read all records of a stopped server, and compare them with its index.",
    "rebuild-index": "Make the index of a stopped server anew.",
    "dump": "Show the records of one data file.",
}


class WithTools(click.Command):
    """The server's command, and behind a tool's name that tool.  The server takes no plain arguments."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if not args or args[0] not in TOOLS:
            return super().make_context(info_name, args, parent, **extra)
        from fabric.cli import chunk_tools, chunk_upkeep

        tool = {**chunk_upkeep.COMMANDS, **chunk_tools.COMMANDS}[args[0]]
        return tool.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Tools, such as: fabric chunk status HOST:PORT (each has a --help)"):
            formatter.write_dl(list(TOOLS.items()))


@click.command(cls=WithTools)
@click.option("--name", required=True, help="Name of this server, the same at every start: chunk-1.")
@click.option(
    "--listen", type=HOST_PORT, default="127.0.0.1:7410", show_default=True, help="Where requests arrive."
)
@click.option(
    "--advertise", type=HOST_PORT, default=None, help="Where others reach it.  [default: as --listen]"
)
@click.option("--master", type=HOST_PORT, default="127.0.0.1:7400", show_default=True, help="The master.")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory of its data."
)
@click.option(
    "--group",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="The group it is for; 0: the master chooses.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), default=None, help="TOML file with a [settings] table."
)
def command(
    name: str, listen: str, advertise: str | None, master: str, data: Path, group: int, config: Path | None
) -> None:
    """Run a chunk server: it keeps one replica of its group's fragments in one directory.

    The first start creates the directory and gives it to NAME for good.
    """
    import logging
    import random

    from fabric import __version__
    from fabric.chunk.role import ChunkRole
    from fabric.errors import FabricError
    from fabric.node.host import host_id
    from fabric.node.lanes import Lane
    from fabric.node.zmq_loop import BindFailed, ZmqLoop

    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(message)s")
    log = logging.getLogger("fabric")
    settings = load_settings(config)
    secret = random.SystemRandom()
    engine, identity = _open_engine(data, name, settings, secret)
    for note in engine.notes:
        log.warning("%s", note)
    role = ChunkRole(
        server=name,
        uuid=identity.uuid,
        incarnation=secret.getrandbits(63),
        endpoint=advertise or listen,
        group=group,
        master=master,
        settings=settings,
        rng=random.Random(),
        version=__version__,
        host=host_id() if settings.near_reads else "",
        directory=str((data / FRAGMENTS).absolute()),
    )
    lanes = {
        "write": Lane(engine.run),
        "read": Lane(engine.run, settings.read_threads),
        "background": Lane(engine.run),
    }
    try:
        loop = ZmqLoop(role, listen=listen, lanes=lanes, shares_memory=settings.near_writes)
    except BindFailed as error:
        engine.close()
        raise click.ClickException(error.message) from error
    log.info("listens on %s, data in %s", listen, data)
    status = loop.run()
    try:
        engine.close()
    except FabricError as error:
        log.warning("the next start will read more: %s", error.message)
    sys.exit(status)
