"""``python -m bench.engine``: the chunk engine alone, each figure beside its target."""

from __future__ import annotations

import datetime
import fnmatch
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.engine.compaction import gets_beside_compaction
from bench.engine.figures import Figure
from bench.engine.million import many_fragments
from bench.engine.reads import cached_gets
from bench.engine.writes import large_puts, small_puts
from bench.errors import BenchError
from bench.machine import ROOT, Machine, Revision, machine, revision
from bench.processes import machine_cpu_seconds
from fabric.node.process import set_up_process
from fabric.settings import MIB

WIDTH_OF_FILES = 160
RESULTS = ROOT / "bench" / "results"


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
    count = 20_000 if quick else 1_000_000
    total_bytes = 64 * MIB if quick else 512 * MIB
    return {
        "put-4MiB": lambda: [large_puts(work, runs=runs, total_bytes=total_bytes)],
        "put-1KiB": lambda: [small_puts(work, runs=runs, seconds=0.3 if quick else 2.0)],
        "get-4MiB": lambda: [cached_gets(work, runs=runs)],
        "many": lambda: many_fragments(work, count=count, runs=runs),
        "compaction": lambda: [
            gets_beside_compaction(
                work, runs=runs, large_count=24 if quick else 96, seconds=0.5 if quick else 5.0
            )
        ],
    }


@click.command()
@click.option(
    "--only", metavar="NAME", multiple=True, help="Cases whose name contains or matches this; repeatable."
)
@click.option("--list", "only_list", is_flag=True, help="Name the cases and stop.")
@click.option("--quick", is_flag=True, help="A smoke test with small stores: its figures mean nothing.")
@click.option(
    "--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each figure."
)
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
    help="The result file.  [default: bench/results/engine-DATE-COMMIT.json]",
)
def main(
    only: tuple[str, ...], only_list: bool, quick: bool, runs: int, work: Path, path: Path | None
) -> None:
    """Measure the chunk engine alone: one server, no network, beside the limits of this machine.

    Needs about 2 GB of disk for some minutes.  Exit status 0 when everything could be measured, whatever
    the figures.
    """
    work.mkdir(parents=True, exist_ok=True)
    chosen = {
        name: case
        for name, case in cases(work, quick, runs).items()
        if not only or any(pattern in name or fnmatch.fnmatch(name, pattern) for pattern in only)
    }
    if not chosen:
        raise click.UsageError(f"no case matches {' '.join(only)}; see --list")
    if only_list:
        click.echo("\n".join(chosen))
        return
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_FILES)
    about = machine(work)
    started_at = datetime.datetime.now(datetime.UTC)
    figures: list[Figure] = []
    set_up_process()
    for name, case in chosen.items():
        with console.status(f"measuring {name}"):
            try:
                figures += _measured(case)
            except (BenchError, OSError) as error:
                raise click.ClickException(f"{name}: {error}") from error
    report = Report(1, started_at.isoformat(timespec="seconds"), quick, about, revision(), figures)
    path = path or RESULTS / f"engine-{started_at:%Y%m%dT%H%M%S}-{report.revision.commit[:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    console.print(_table(figures))
    console.print(str(path), highlight=False, soft_wrap=True)


def _measured(case: Callable[[], list[Figure]]) -> list[Figure]:
    """The figures of a case, with what others used of the machine meanwhile."""
    began_at, machine_before, own_before = perf_counter(), machine_cpu_seconds(), sum(os.times()[:4])
    figures = case()
    others = machine_cpu_seconds() - machine_before - (sum(os.times()[:4]) - own_before)
    for one in figures:
        one.others = round(max(0.0, others) / (perf_counter() - began_at), 2)
    return figures


def _table(figures: list[Figure]) -> Table:
    table = Table(title="Chunk engine")
    for title in ("figure", "median", "runs", "target", "", "beside", "other use"):
        table.add_column(title)
    for one in figures:
        runs = " ".join(f"{run:.3g}" for run in one.runs)
        verdict = "reached" if one.attained else "NOT reached"
        others = f"{one.others:.1f} cores"
        table.add_row(
            one.name, f"{one.value:.3g} {one.unit}", runs, one.target_text, verdict, one.beside, others
        )
    return table


if __name__ == "__main__":
    main()
