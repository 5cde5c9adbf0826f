"""``fabric chunk check|rebuild-index|dump``: tools for the directory of a stopped server."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fabric.cli.output import plain, print_json, print_table, progress_bar, reported_errors, time_text

if TYPE_CHECKING:
    from fabric.chunk.data_file import DataFile
    from fabric.chunk.record import Superblock
    from fabric.chunk.scan import Found, Gap
    from fabric.chunk.verify import Verified

DIRECTORY = click.Path(path_type=Path, file_okay=False)


def _uuid_of(directory: Path) -> bytes:
    """Whose directory it is.  Raises click.ClickException when it is no chunk server's."""
    import msgspec

    from fabric.cli.chunk import IDENTITY_FORMAT, Identity

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

    Nothing in DIR is changed; the index is read from a copy in the system's directory for temporary files.
    Prints what is there and each damaged record or fragment.  Exit status: 0 if all is well, 1 if not.

    A server that runs repairs single damaged fragments from its group by itself; a damaged
    index is made anew at its next start, or by `fabric chunk rebuild-index`.
    """
    from fabric.chunk.index import IndexLost
    from fabric.chunk.leveldb_index import LevelDbHome
    from fabric.chunk.verify import verify
    from fabric.node.read_only_disk import ReadOnlyDisk

    uuid = _uuid_of(directory)
    with reported_errors(), tempfile.TemporaryDirectory(prefix="fabric-check-") as temporary:
        disk = ReadOnlyDisk(directory / "fragments")
        copy, index, lost = Path(temporary) / "index", None, []
        try:
            if (directory / "index").is_dir():
                shutil.copytree(directory / "index", copy)
            if (directory / "index.condemned").exists():
                (Path(temporary) / "index.condemned").touch()
            index = LevelDbHome(copy).open()
        except IndexLost as error:
            lost = [error.message.replace(str(copy), str(directory / "index"))]
        try:
            with progress_bar("check", _data_bytes(directory)) as advance:
                result = verify(disk, index, uuid, advance)
        finally:
            if index is not None:
                index.close()
            disk.close()
    damage = [line.replace(str(copy), str(directory / "index")) for line in (*lost, *result.damage)]
    if as_json:
        print_json({**plain(result), "damage": damage})
    else:
        _print_verified(result, damage)
    if damage:
        sys.exit(1)


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
            with progress_bar("rebuild", _data_bytes(directory)) as advance:
                state = rebuild(disk, LevelDbHome(directory / "index"), uuid, _further(advance))
            state.index.close()
            state.files.close()
        finally:
            disk.close()
    for note in state.notes:
        click.echo(f"note: {note}")
    totals = state.totals.snapshot
    click.echo(
        f"{state.files.count} data files; the new index has {totals.fragments} fragments "
        f"({totals.live_bytes} bytes), {len(state.quarantined)} of them damaged"
    )


def _further(advance: Callable[[int], object]) -> Callable[[int, int], object]:
    """From bytes so far to bytes since the last call."""
    before = 0

    def on_bytes(done: int, total: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return on_bytes


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
def dump(path: Path, as_json: bool) -> None:
    """Show the records of FILE, such as 00000001.data, wherever it lies.

    First the superblock, then a row a record in the order of the file.  `bad`: the payload fails its
    checksum; `gap`: bytes that are no record.  Length and checksum of a tombstone are those of what it
    deletes.
    """
    from fabric.chunk.data_file import DataFile
    from fabric.chunk.record import FORMAT_VERSION, SUPERBLOCK_BYTES, decode_superblock
    from fabric.node.read_only_disk import ReadOnlyFile

    with reported_errors():
        file = ReadOnlyFile(path)
        try:
            superblock = decode_superblock(file.pread(SUPERBLOCK_BYTES, 0))
            if superblock is None:
                raise click.ClickException(f"{path} is not a data file, or its superblock is damaged")
            if superblock.version != FORMAT_VERSION:
                raise click.ClickException(
                    f"{path} has format {superblock.version}, this is {FORMAT_VERSION}"
                )
            items = _with_end(DataFile(file, superblock, SUPERBLOCK_BYTES))
            if as_json:
                _print_lines(superblock, items)
            else:
                _print_rows(superblock, items)
        finally:
            file.close()


def _with_end(data_file: DataFile) -> Iterator[Found | Gap]:
    """What a scan finds, and as a last gap what lies behind it, unless it is zeros."""
    from fabric.chunk.record import SUPERBLOCK_BYTES
    from fabric.chunk.scan import Gap, scan
    from fabric.chunk.verify import end_of_bytes

    size = data_file.file.size()
    end = SUPERBLOCK_BYTES
    for item in scan(data_file, end, size):
        end = item.end
        yield item
    behind = end_of_bytes(data_file, end, size)
    if behind > end:
        yield Gap(end, behind)


def _print_lines(superblock: Superblock, items: Iterator[Found | Gap]) -> None:
    from fabric.chunk.record import COMPACTED

    block = {
        "file": superblock.number,
        "uuid": superblock.uuid.hex(),
        "created_at_ms": superblock.created_at_ms,
        "compacted": superblock.kind == COMPACTED,
    }
    click.echo(json.dumps({"kind": "superblock", **block, "format": superblock.version}))
    for item in items:
        click.echo(json.dumps(_object(item)))


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


def _print_rows(superblock: Superblock, items: Iterator[Found | Gap]) -> None:
    from fabric.chunk.record import COMPACTED

    kind = ", written by compaction" if superblock.kind == COMPACTED else ""
    title = (
        f"data file {superblock.number} of server {superblock.uuid.hex()}, format {superblock.version}{kind}"
    )
    columns = ("offset", "fid", "group", "epoch", "flags", "length", "checksum", "time", "state")
    rows = [_row(_object(item)) for item in items]
    print_table(f"{title}, created {time_text(superblock.created_at_ms)}", columns, rows)


def _row(item: dict[str, Any]) -> list[str]:
    if item["kind"] == "gap":
        return [str(item["offset"]), *[""] * 4, str(item["end"] - item["offset"]), "", "", "gap"]
    numbers = [str(item[name]) for name in ("offset", "fid", "group", "epoch")]
    flags, state = "tombstone" if item["tombstone"] else "", "ok" if item["good"] else "bad"
    return [*numbers, flags, str(item["length"]), item["checksum"], time_text(item["time_ms"]), state]


COMMANDS = {"check": check, "rebuild-index": rebuild_index, "dump": dump}
