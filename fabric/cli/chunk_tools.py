"""``fabric chunk check|rebuild-index|dump``: tools for the directory of a stopped server."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fabric.cli.chunk import IDENTITY_FORMAT, Identity
from fabric.cli.output import (
    in_steps,
    plain,
    print_json,
    reported_errors,
    share_bar,
    size_text,
    time_text,
)

if TYPE_CHECKING:
    from fabric.chunk.record import Superblock
    from fabric.chunk.scan import Found, Gap
    from fabric.chunk.verify import Verified

DIRECTORY = click.Path(path_type=Path, file_okay=False)


def _uuid_of(directory: Path) -> bytes:
    """Whose directory it is.  Raises click.ClickException when it is no chunk server's."""
    path = directory / "server.json"
    try:
        identity = msgspec.json.decode(path.read_bytes(), type=Identity)
        if identity.format != IDENTITY_FORMAT:
            raise ValueError(f"it has format {identity.format}, this is {IDENTITY_FORMAT}")
        return bytes.fromhex(identity.uuid)
    except FileNotFoundError as error:
        text = f"{directory} is not a chunk server's data directory: there is no {path.name} in it"
        raise click.ClickException(text) from error
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise click.ClickException(f"cannot read {path}: {error}") from error


def _data_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "fragments").glob("*.data"))


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def check(directory: Path, as_json: bool) -> None:
    """Read every record in DIR, a stopped chunk server's data directory, and compare with the index.

    Nothing in DIR is changed, so it may be mounted read-only; the index is read from a copy in the system's
    directory for temporary files (TMPDIR), which is removed afterwards.  Prints what is there and each
    damaged record or fragment.  Exit status: 0 if all is well, 1 if not, or if it could not be told.

    A server that runs repairs single damaged fragments from its group by itself; a damaged
    index is made anew at its next start, or by `fabric chunk rebuild-index`.
    """
    from fabric.chunk.index import IndexLost
    from fabric.chunk.leveldb_index import LevelDbHome
    from fabric.chunk.verify import verify
    from fabric.node.read_only_disk import ReadOnlyDisk

    uuid, lost = _uuid_of(directory), []
    with reported_errors(), contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fabric-check-")))
        disk = stack.enter_context(contextlib.closing(ReadOnlyDisk(directory / "fragments")))
        copy, index = temporary / "index", None
        try:
            _copy_index(directory, temporary)
            index = stack.enter_context(contextlib.closing(LevelDbHome(copy).open()))
        except IndexLost as error:
            lost = [error.message]
        with share_bar("check") as show:
            result = verify(disk, index, uuid, _summed(in_steps(show), _data_bytes(directory)))
            show(1.0)
    damage = [line.replace(str(copy), str(directory / "index")) for line in (*lost, *result.damage)]
    if as_json:
        print_json({**plain(result), "damage": damage})
    else:
        _print_verified(result, damage)
    if damage:
        sys.exit(1)


COPY_ROOM_BYTES = 16 * 1024 * 1024
"""Opening the copy may write its logs once more."""


def _copy_index(directory: Path, temporary: Path) -> None:
    """Opening a LevelDB changes it, so a copy is opened.  Raises click.ClickException without room for it."""
    index = directory / "index"
    if (directory / "index.condemned").exists():
        (temporary / "index.condemned").touch()
    if not index.is_dir():
        return
    needed = sum(path.stat().st_size for path in index.iterdir()) + COPY_ROOM_BYTES
    room = shutil.disk_usage(temporary).free
    if needed > room:
        raise click.ClickException(
            f"a copy of the index needs {size_text(needed)}, and {temporary.parent} has room for "
            f"{size_text(room)}: set TMPDIR to a directory with more"
        )
    shutil.copytree(index, temporary / "index")


def _summed(on_bytes: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_bytes(done, total)

    return advance


def _print_verified(result: Verified, damage: list[str]) -> None:
    for line in damage:
        click.echo(f"damage: {line}")
    for line in result.notes:
        click.echo(f"note: {line}")
    click.echo(
        f"{result.files} data files, {result.records} records; the index has {result.fragments} fragments "
        f"({result.live_bytes} bytes) and {result.tombstones} tombstones"
    )
    click.echo(f"{len(damage)} damaged" if damage else "all is well")


@click.command("rebuild-index")
@click.argument("directory", metavar="DIR", type=DIRECTORY)
def rebuild_index(directory: Path) -> None:
    """Make the index in DIR, a stopped chunk server's data directory, anew from its data files.

    The old index is kept as DIR/index.damaged, in the place of an earlier one.  Like at any start, an
    unfinished write at the end of the newest data file is cut off.
    """
    from fabric.chunk.leveldb_index import LevelDbHome
    from fabric.chunk.recovery import rebuild
    from fabric.node.os_disk import OsDisk

    uuid = _uuid_of(directory)
    if not (directory / "fragments").is_dir():
        raise click.ClickException(f"there is no {directory / 'fragments'}: nothing to build an index from")
    with reported_errors():
        disk = OsDisk(directory / "fragments")
        try:
            with share_bar("rebuild") as show:
                home = LevelDbHome(directory / "index")
                state = rebuild(disk, home, uuid, in_steps(show))
                show(1.0)
            state.index.close()
            state.files.close()
        finally:
            disk.close()
    for note in state.notes:
        click.echo(f"note: {note}")
    totals = state.totals.snapshot
    entries = sum(in_file.records for in_file in state.totals.files().values())
    click.echo(
        f"{state.files.count} data files; the new index has {totals.fragments} fragments "
        f"({totals.live_bytes} bytes), {len(state.quarantined)} of them damaged, "
        f"and {entries - totals.fragments} tombstones"
    )


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
def dump(path: Path, as_json: bool) -> None:
    """Show the records of FILE, such as 00000001.data, wherever it lies.

    First the superblock, then a row a record in the order of the file.  `bad`: the payload fails its
    checksum; `gap`: bytes that are no record.  Length and checksum of a tombstone are those of what it
    deletes.  Files that compaction is writing (.data.new), and those that a start has put aside
    (.data.damaged), can be read too.
    """
    from fabric.chunk.dump import items, open_alone
    from fabric.node.read_only_disk import ReadOnlyFile

    with reported_errors():
        file = ReadOnlyFile(path)
        try:
            data_file, superblock = open_alone(file, path.name)
            click.echo(json.dumps(_block(superblock)) if as_json else _title(superblock))
            if not as_json:
                click.echo(_line(dict(zip(COLUMNS, COLUMNS, strict=True))))
            rows = map(_object, items(data_file))
            while lines := list(islice(rows, LINES)):
                click.echo("\n".join(json.dumps(row) if as_json else _line(_row(row)) for row in lines))
        finally:
            file.close()


def _block(superblock: Superblock | None) -> dict[str, Any]:
    from fabric.chunk.record import COMPACTED

    if superblock is None:
        return {"kind": "superblock", "good": False}
    return {
        "kind": "superblock",
        "good": True,
        "file": superblock.number,
        "uuid": superblock.uuid.hex(),
        "created_at_ms": superblock.created_at_ms,
        "compacted": superblock.kind == COMPACTED,
        "format": superblock.version,
    }


def _title(superblock: Superblock | None) -> str:
    from fabric.chunk.record import COMPACTED

    if superblock is None:
        return "the superblock is damaged; its salt is still right"
    kind = "written by compaction" if superblock.kind == COMPACTED else "appended to"
    return (
        f"data file {superblock.number} of server {superblock.uuid.hex()}, format {superblock.version}, "
        f"{kind}, created {time_text(superblock.created_at_ms)}"
    )


def _object(item: Found | Gap) -> dict[str, Any]:
    from fabric.chunk.scan import Gap

    if isinstance(item, Gap):
        return {"kind": "gap", "offset": item.start, "end": item.end}
    header = item.header
    return {
        "kind": "record",
        "offset": header.offset,
        "fid": header.fid,
        "group": header.group,
        "epoch": header.epoch,
        "tombstone": header.is_tombstone,
        "length": header.length,
        "checksum": f"{header.checksum:016x}",
        "time_ms": header.time_ms,
        "batch": header.batch,
        "good": item.good,
    }


LINES = 100
"""Printed at once: each print is a flush."""
COLUMNS = {
    "offset": 10,
    "fid": 20,
    "group": 10,
    "epoch": 8,
    "flags": 9,
    "length": 10,
    "checksum": 16,
    "time": 19,
    "batch": 10,
    "state": 5,
}
"""Columns and their widths: rows are printed as they are read, however many there are."""


def _row(item: dict[str, Any]) -> dict[str, str]:
    if item["kind"] == "gap":
        return {"offset": item["offset"], "length": item["end"] - item["offset"], "state": "gap"}
    return {
        **item,
        "flags": "tombstone" if item["tombstone"] else "",
        "time": time_text(item["time_ms"]),
        "state": "ok" if item["good"] else "bad",
    }


def _line(values: dict[str, Any]) -> str:
    cells = (str(values.get(name, "")).rjust(width) for name, width in COLUMNS.items())
    return "  ".join(cells).rstrip()


COMMANDS = {"check": check, "rebuild-index": rebuild_index, "dump": dump}
