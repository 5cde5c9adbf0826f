"""``python -m bench.peers``: the fabric side by side with SeaweedFS, docker-registry and the bare machine."""

from __future__ import annotations

import datetime
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import click
from rich.console import Console

from bench.errors import BenchError
from bench.machine import ROOT, machine, revision
from bench.peers import report as report_
from bench.peers.figures import Outcome
from bench.peers.measure import measure
from bench.peers.programs import program
from bench.peers.results import FORMAT, Report, file_name, save
from bench.peers.rows import FULL, QUICK, Row, rows, select
from bench.peers.seaweed import SOURCE
from bench.peers.stage import Effort

WIDTH_OF_FILES = 200
RESULTS = ROOT / "bench" / "results"
VERSIONS = {
    "weed": ["version"],
    "docker-registry": ["--version"],
    "skopeo": ["--version"],
}


@click.command()
@click.option(
    "--only", metavar="ROW", multiple=True, help="Rows whose name contains or matches this; repeatable."
)
@click.option("--list", "only_list", is_flag=True, help="Name the rows and stop.")
@click.option("--quick", is_flag=True, help="One short run of each: some four minutes instead of fifteen.")
@click.option("--runs", type=click.IntRange(1, 100), help="Runs of each side.  [default: 3, quick 1]")
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
    help="The result file.  [default: bench/results/peers-DATE-COMMIT.json]",
)
def main(
    only: tuple[str, ...], only_list: bool, quick: bool, runs: int | None, work: Path, path: Path | None
) -> None:
    """Measure a fabric of its own beside other systems of their own, in turns.

    Needs some 70 GB of disk.  Exit status 0 when every row could be measured, whatever the figures; else 1.
    """
    chosen = select(rows(), only)
    if not chosen:
        raise click.UsageError(f"no row matches {' '.join(only)}; see --list")
    if only_list:
        for row in chosen:
            targets = ", ".join(str(target) for target in row.targets if target.bound is not None)
            click.echo(f"{row.name:22}{targets:26}{row.question}")
        return
    effort = QUICK if quick else FULL
    effort = effort._replace(runs=runs or effort.runs)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_FILES)
    try:
        report = _measured(chosen, effort, quick, work, console)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)
    path = path or RESULTS / file_name(report)
    save(report, path)
    report_.show(report, console)
    console.print(f"{report.elapsed_s:.0f} s; every run is in {path}", highlight=False, soft_wrap=True)
    if any(outcome.failure for outcome in report.outcomes):
        sys.exit(1)


def _measured(chosen: list[Row], effort: Effort, quick: bool, work: Path, console: Console) -> Report:
    work.mkdir(parents=True, exist_ok=True)
    about = machine(work)
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    started = perf_counter()

    def done(outcome: Outcome) -> None:
        ratios = ", ".join(
            f"{report_.value_name(figure.value)} {figure.ratio} {report_.verdict(figure)}"
            for figure in outcome.figures
        )
        console.print(
            f"{outcome.row:22} {outcome.elapsed_s:5.1f} s  {outcome.failure or ratios}", highlight=False
        )

    with console.status("") as status:
        outcomes = measure(chosen, effort, work, status.update, done)
    return Report(
        format=FORMAT,
        started_at=started_at,
        elapsed_s=round(perf_counter() - started, 1),
        quick=quick,
        effort=effort,
        machine=about,
        revision=revision(),
        versions=_versions(),
        outcomes=outcomes,
    )


def _versions() -> dict[str, str]:
    found = {}
    for name, arguments in VERSIONS.items():
        try:
            command = [program(name, SOURCE), *arguments]
        except BenchError:
            continue
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        found[name] = (done.stdout or done.stderr).strip().split("\n")[0]
    return found


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
