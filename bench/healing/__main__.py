"""``python -m bench.healing``: loss, return and rebuilding of servers, each figure beside its target."""

from __future__ import annotations

import datetime
import fnmatch
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.engine.figures import Figure
from bench.errors import BenchError
from bench.healing.loss import killed_server
from bench.healing.rebuild import empty_disk
from bench.healing.returning import returning_server
from bench.healing.topology import added_group, drained_group
from bench.machine import ROOT, Machine, Revision, machine, revision
from fabric.errors import FabricError
from fabric.settings import GIB, MIB, Settings

WIDTH_OF_FILES = 180
RESULTS = ROOT / "bench" / "results"
FORMAT = 1


class Report(msgspec.Struct):
    """The result file."""

    format: int
    started_at: str
    quick: bool
    machine: Machine
    revision: Revision
    figures: list[Figure]


def cases(work: Path, quick: bool, runs: int) -> dict[str, Callable[[], list[Figure]]]:
    """Name -> what measures it."""
    large_bytes = 64 * MIB if quick else 2 * GIB
    return {
        "kill": lambda: killed_server(work, runs=runs, away_s=5.0 if quick else 7.0),
        "return": lambda: returning_server(work, runs=runs, count=200 if quick else 10_000),
        "rebuild": lambda: empty_disk(work, runs=runs, total_bytes=large_bytes),
        "drain": lambda: drained_group(
            work, total_bytes=large_bytes, grace_s=2.0 if quick else Settings().delete_grace_s
        ),
        "add": lambda: added_group(work, runs=runs, total_bytes=64 * MIB if quick else 256 * MIB),
    }


@click.command()
@click.option(
    "--only", metavar="NAME", multiple=True, help="Cases whose name contains or matches this; repeatable."
)
@click.option("--list", "only_list", is_flag=True, help="Name the cases and stop.")
@click.option("--quick", is_flag=True, help="A smoke test with little data: its figures mean little.")
@click.option("--runs", type=click.IntRange(1, 100), help="Runs of each figure.  [default: 3, quick 1]")
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "bench" / "work",
    help="Where data lies meanwhile: the disk that is measured.  [default: bench/work]",
)
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The result file.  [default: bench/results/healing-DATE-COMMIT.json]",
)
def main(
    only: tuple[str, ...], only_list: bool, quick: bool, runs: int | None, work: Path, path: Path | None
) -> None:
    """Measure how a fabric of its own heals, and what its clients notice.

    Needs about 15 GB of disk for some minutes.  Exit status 0 when everything could be measured, whatever
    the figures.
    """
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="healing-", dir=work) as scratch:
        chosen = {
            name: case
            for name, case in cases(Path(scratch), quick, runs or (1 if quick else 3)).items()
            if not only or any(pattern in name or fnmatch.fnmatch(name, pattern) for pattern in only)
        }
        if not chosen:
            raise click.UsageError(f"no case matches {' '.join(only)}; see --list")
        if only_list:
            click.echo("\n".join(chosen))
            return
        signal.signal(signal.SIGTERM, _interrupt)
        console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_FILES)
        report = _measured(chosen, quick, work, console)
    path = path or RESULTS / f"healing-{_compact(report.started_at)}-{report.revision.commit[:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    console.print(_table(report.figures))
    console.print(str(path), highlight=False, soft_wrap=True)


def _measured(
    chosen: dict[str, Callable[[], list[Figure]]], quick: bool, work: Path, console: Console
) -> Report:
    about = machine(work)
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    figures: list[Figure] = []
    for name, case in chosen.items():
        with console.status(f"measuring {name}"):
            try:
                figures += case()
            except (BenchError, FabricError, OSError) as error:
                raise click.ClickException(f"{name}: {error}") from error
    return Report(FORMAT, started_at, quick, about, revision(), figures)


def _compact(started_at: str) -> str:
    return f"{datetime.datetime.fromisoformat(started_at):%Y%m%dT%H%M%S}"


def _table(figures: list[Figure]) -> Table:
    table = Table(title="Healing")
    for title in ("figure", "median", "runs", "target", "", "beside"):
        table.add_column(title)
    for one in figures:
        runs = " ".join(f"{run:.3g}" for run in one.runs)
        verdict = "reached" if one.attained else "NOT reached"
        table.add_row(one.name, f"{one.value:.3g} {one.unit}", runs, one.target_text, verdict, one.beside)
    return table


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
