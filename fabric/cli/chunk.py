"""``fabric chunk``: one chunk server."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from fabric.cli.options import HOST_PORT, load_settings

IDENTITY_FORMAT = 1


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


@click.command()
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
    import time

    from fabric import __version__
    from fabric.chunk.engine import Engine
    from fabric.chunk.leveldb_index import LevelDbHome
    from fabric.chunk.role import ChunkRole
    from fabric.errors import FabricError
    from fabric.node.lanes import Lane
    from fabric.node.os_disk import OsDisk
    from fabric.node.zmq_loop import BindFailed, ZmqLoop

    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(message)s")
    log = logging.getLogger("fabric")
    settings = load_settings(config)
    secret = random.SystemRandom()
    try:
        disk = OsDisk(data / "fragments")
        identity = load_identity(data, name, bool(disk.names()))
        engine = Engine(
            disk,
            LevelDbHome(data / "index"),
            uuid=bytes.fromhex(identity.uuid),
            settings=settings,
            rng=secret,
            wall_ms=lambda: time.time_ns() // 1_000_000,
        )
    except FabricError as error:
        raise click.ClickException(error.message) from error
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
    )
    lanes = {
        "write": Lane(engine.run),
        "read": Lane(engine.run, settings.read_threads),
        "background": Lane(engine.run),
    }
    try:
        loop = ZmqLoop(role, listen=listen, lanes=lanes)
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
