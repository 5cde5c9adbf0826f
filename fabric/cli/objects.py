"""``fabric put``, ``get``, ``stat``, ``ls``, ``mv``, ``rm``: objects by name, through a proxy."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import click

from fabric.cli.options import HOST_PORT
from fabric.cli.output import (
    plain,
    print_json,
    print_table,
    progress_bar,
    reported_errors,
    size_text,
    time_text,
)

if TYPE_CHECKING:
    from fabric.driver import Storage
    from fabric.wire.messages import ObjectInfo

STANDARD = "-"
PAGE = 1000

_proxy = click.option(
    "--proxy", type=HOST_PORT, default="127.0.0.1:7420", show_default=True, help="The proxy to go through."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("path")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@_json
@_proxy
def put(path: str, file: str, as_json: bool, proxy: str) -> None:
    """Store FILE (- is standard input) as the object PATH, replacing what is there.

    When the command returns, every replica has the bytes on stable storage.
    """
    with _storage(proxy) as storage, _source(file) as source:
        size = None if file == STANDARD else Path(file).stat().st_size
        with progress_bar(f"put {path}", size) as advance:
            info = storage.stream_write(path, cast("BinaryIO", _Counted(source, advance)))
        if as_json:
            print_json(plain(info))


@click.command()
@click.argument("path")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@_proxy
def get(path: str, file: str, proxy: str) -> None:
    """Read the object PATH into FILE (- is standard output).

    FILE is replaced whole, or left as it was when anything fails.  A device or pipe is written to.
    """
    from fabric.cli.files import write_whole

    with _storage(proxy) as storage:
        size = storage.get_size(path)
        with progress_bar(f"get {path}", size) as advance:
            pieces = _counted(storage.stream_read(path), advance)
            target = Path(file).resolve()
            if file == STANDARD:
                _copy(pieces, sys.stdout.buffer)
            elif target.exists() and not target.is_file():
                with target.open("wb") as device:
                    _copy(pieces, device)
            else:
                write_whole(target, pieces)


@click.command()
@click.argument("path")
@_json
@_proxy
def stat(path: str, as_json: bool, proxy: str) -> None:
    """Show what is known of the object PATH."""
    with _storage(proxy) as storage:
        info = storage.stat(path)
    if as_json:
        print_json(plain(info))
        return
    rows = [
        ["path", info.path],
        ["size", f"{info.size} B ({size_text(info.size)})"],
        ["digest", info.digest or "none declared"],
        ["generation", str(info.generation)],
        ["created", time_text(info.created_at_ms)],
        ["immutable", "yes" if info.immutable else "no"],
        *([name, value] for name, value in info.attributes.items()),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


@click.command()
@click.argument("prefix", default="")
@click.option("-l", "--long", "as_table", is_flag=True, help="Sizes and times too.")
@click.option("-d", "--fold", is_flag=True, help='Fold names behind the next "/" into one line.')
@_json
@_proxy
def ls(prefix: str, as_table: bool, fold: bool, as_json: bool, proxy: str) -> None:
    """List the objects whose path begins with PREFIX, in byte order."""
    with _storage(proxy) as storage:
        if as_json:
            pages = list(_pages(storage, prefix, fold))
            objects = [plain(info) for page in pages for info in page[0]]
            print_json({"objects": objects, "prefixes": [name for page in pages for name in page[1]]})
        elif as_table:
            rows = [_row(entry) for page in _pages(storage, prefix, fold) for entry in _in_order(*page)]
            print_table("", ["path", "created", "size"], rows, right=1)
        else:
            for page in _pages(storage, prefix, fold):
                for entry in _in_order(*page):
                    click.echo(entry if isinstance(entry, str) else entry.path)


@click.command()
@click.argument("source")
@click.argument("target")
@_proxy
def mv(source: str, target: str, proxy: str) -> None:
    """Rename the object SOURCE to TARGET, replacing what is there; the size does not matter."""
    with _storage(proxy) as storage:
        storage.move(source, target)


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="A path without an object is no error.")
@click.option("-r", "--recursive", is_flag=True, help='Everything under "PATH/" too.')
@_proxy
def rm(paths: tuple[str, ...], force: bool, recursive: bool, proxy: str) -> None:
    """Remove objects."""
    from fabric.errors import NotFound

    with _storage(proxy) as storage:
        for path in paths:
            if not recursive and storage.list_page(f"{path.rstrip('/')}/", "", "", 1).objects:
                raise click.ClickException(f"there are objects under {path}/; -r removes them too")
            with contextlib.suppress(*([NotFound] if force else [])):
                storage.remove(path)


# --- what they share -----------------------------------------------------------------------------


@contextlib.contextmanager
def _storage(proxy: str) -> Iterator[Storage]:
    from fabric.driver import Storage

    with reported_errors(), Storage(proxy=proxy) as storage:
        yield storage


@contextlib.contextmanager
def _source(file: str) -> Iterator[IO[bytes]]:
    if file == STANDARD:
        yield sys.stdin.buffer
        return
    with open(file, "rb") as opened:
        yield opened


class _Counted:
    """A file that is read from, telling how far."""

    def __init__(self, file: IO[bytes], advance: Callable[[int], object]) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        """Like the file's own."""
        data = self._file.read(size)
        self._advance(len(data))
        return data


def _copy(pieces: Iterable[bytes], file: IO[bytes]) -> None:
    for piece in pieces:
        file.write(piece)
    file.flush()


def _counted(pieces: Iterable[Any], advance: Callable[[int], object]) -> Iterator[Any]:
    for piece in pieces:
        yield piece
        advance(len(piece))


def _pages(storage: Storage, prefix: str, fold: bool) -> Iterator[tuple[list[ObjectInfo], list[str]]]:
    after = ""
    while True:
        page = storage.list_page(prefix, "/" if fold else "", after, PAGE)
        yield page.objects, page.prefixes
        if not page.next:
            return
        after = page.next


def _in_order(objects: list[ObjectInfo], prefixes: list[str]) -> list[ObjectInfo | str]:
    entries: list[ObjectInfo | str] = [*objects, *prefixes]
    return sorted(entries, key=lambda entry: (entry if isinstance(entry, str) else entry.path).encode())


def _row(entry: ObjectInfo | str) -> list[str]:
    if isinstance(entry, str):
        return [entry, "", ""]
    return [entry.path, time_text(entry.created_at_ms), size_text(entry.size)]
