"""How commands speak: JSON for programs, tables for people, one line for an error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec

from fabric.errors import FabricError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree

STYLES = {
    "RW": "green",
    "WRITABLE": "green",
    "SYNCING": "yellow",
    "FORMING": "yellow",
    "INIT": "yellow",
    "RO": "magenta",
    "SEALED": "red",
    "OFFLINE": "red",
    "running": "yellow",
    "done": "green",
    "failed": "red",
    "cancelled": "magenta",
}
"""The colour of each state of a node, a group or a task."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Turn what goes wrong in the fabric or with a file into one line and exit status 1."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read our output has gone; click ends quietly
    except FabricError as error:
        hint = " (it may work if tried again)" if error.retryable else ""
        raise click.ClickException(f"{error.message}{hint}") from error
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{name}{error.strerror or error}") from error


def plain(value: msgspec.Struct) -> dict[str, Any]:
    """A message or a part of one by field names, for JSON; nested ones too."""
    return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return plain(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return value


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """One JSON document in a line of its own: for what goes on."""
    click.echo(json.dumps(_plain(value), ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: int = 0) -> None:
    """A table on standard output; the last ``right`` columns are numbers.  States get their colour."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for position, column in enumerate(columns):
        is_number = position >= len(columns) - right
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(text) for text in row))
    _print(table, Console)


def _cell(text: str) -> Any:
    from rich.text import Text

    return Text(text, style=STYLES.get(text, ""))


def _print(table: Table | Tree, console_class: Any) -> None:
    # Without a terminal there is no width to fit into: nothing is folded, so that grep finds it.
    console = console_class() if sys.stdout.isatty() else console_class(width=240)
    console.print(table)


def print_tree(tree: Tree) -> None:
    """A tree on standard output."""
    from rich.console import Console

    _print(tree, Console)


@contextlib.contextmanager
def progress_bar(title: str, size: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on a terminal's standard error; elsewhere nothing, at no cost."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=size)
        yield lambda count: progress.advance(task, count)


class ShowShare(Protocol):
    """Takes a share, 0 to 1, and perhaps what else is to stand beside the bar."""

    def __call__(self, share: float, note: str = "") -> object: ...


@contextlib.contextmanager
def share_bar(title: str) -> Iterator[ShowShare]:
    """A progress bar on a terminal's standard error that is told a share, 0 to 1; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda share, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    # Where the terminal is narrow, the note gives way.
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        task = progress.add_task(title, total=1.0, note="")
        yield lambda share, note="": progress.update(task, completed=share, note=note)


BAR_STEP = 0.005
"""The part of a bar that is worth drawing it again."""


def in_steps(show: Callable[[float], object]) -> Callable[[int, int], None]:
    """Shows bytes done, of all, as a share, in steps: drawing a bar costs more than reading a record."""
    shown = 0.0

    def on_bytes(done: int, total: int) -> None:
        nonlocal shown
        if done - shown * total >= BAR_STEP * total:
            shown = done / max(1, total)
            show(shown)

    return on_bytes


def size_text(size_bytes: int) -> str:
    """Bytes for people: ``1.5 GiB``."""
    value = float(size_bytes)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def time_text(at_ms: int) -> str:
    """Milliseconds since 1970 as local time for people."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def duration_text(duration_ms: int) -> str:
    """``3d 4h``, ``12m 3s`` or ``1.2 s``."""
    if duration_ms < 60_000:
        return f"{duration_ms / 1000:.1f} s"
    seconds = duration_ms // 1000
    parts = [
        (seconds // 86_400, "d"),
        (seconds // 3_600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    ]
    first = next(i for i, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2])
