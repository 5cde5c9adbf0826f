"""``python -m bench``."""

from __future__ import annotations

import datetime
import signal
import sys
from pathlib import Path
from time import perf_counter

import click
from rich.console import Console

from bench import report as report_
from bench.errors import BenchError
from bench.machine import ROOT, machine, revision
from bench.measure import Options, measure, steps
from bench.plan import QUICK, USUAL, cases, select
from bench.results import DEFINITIONS, FORMAT, Report, file_name, save
from fabric.cli.options import load_settings

WIDTH_OF_FILES = 160
RESULTS = ROOT / "bench" / "results"


@click.command()
@click.option(
    "--only", metavar="NAME", multiple=True, help="Cases whose name contains or matches this; repeatable."
)
@click.option("--list", "only_list", is_flag=True, help="Name the cases and stop.")
@click.option("--quick", is_flag=True, help="A smoke test of a few seconds, with small objects.")
@click.option("--runs", type=click.IntRange(1, 100), help="Runs of each figure.  [default: 3]")
@click.option("--seconds", type=click.FloatRange(0.01, 600), help="Length of each run.  [default: 2]")
@click.option("--clients", type=click.IntRange(1, 64), default=1, show_default=True, help="Client processes.")
@click.option(
    "--replicas", type=click.IntRange(1, 16), default=3, show_default=True, help="Copies of each fragment."
)
@click.option("--groups", type=click.IntRange(1, 100), default=1, show_default=True, help="Replica groups.")
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TOML file for the fabric."
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
    help="The result file.  [default: bench/results/DATE-COMMIT.json]",
)
def main(
    only: tuple[str, ...],
    only_list: bool,
    quick: bool,
    runs: int | None,
    seconds: float | None,
    clients: int,
    replicas: int,
    groups: int,
    config: Path | None,
    work: Path,
    path: Path | None,
) -> None:
    """Measure a fabric of its own beside the limits of this machine.

    Exit status 0 when everything could be measured without errors, whatever the figures; else 1.
    """
    chosen = select(cases(quick=quick), only)
    if not chosen:
        raise click.UsageError(f"no case matches {' '.join(only)}; see --list")
    if only_list:
        for case in chosen:
            click.echo(f"{case.name:28}{case.target or ''}".rstrip())
        return
    effort = QUICK if quick else USUAL
    effort = effort._replace(runs=runs or effort.runs, seconds=seconds or effort.seconds)
    signal.signal(signal.SIGTERM, _interrupt)
    options = Options(chosen, effort, work, replicas, groups, clients, config)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_FILES)
    try:
        report = _measured(options, quick, console)
    except (BenchError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)
    path = path or RESULTS / file_name(report)
    save(report, path)
    report_.show(report, console)
    console.print(report_.heading(str(path), report.elapsed_s), highlight=False, soft_wrap=True)
    if report.restarted or any(figure.errors for figure in report.figures):
        sys.exit(1)


def _measured(options: Options, quick: bool, console: Console) -> Report:
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    started = perf_counter()
    options.work.mkdir(parents=True, exist_ok=True)
    about = machine(options.work)
    with report_.ProgressBar(console, steps(options)) as bar:
        outcome = measure(options, bar)
    return Report(
        format=FORMAT,
        started_at=started_at,
        elapsed_s=round(perf_counter() - started, 1),
        quick=quick,
        replicas=options.replicas,
        groups=options.groups,
        clients=options.clients,
        effort=options.effort,
        machine=about,
        revision=revision(),
        settings=load_settings(options.config),
        disk=outcome.disk,
        figures=outcome.figures,
        memory=outcome.memory,
        restarted=outcome.restarted,
        definitions=DEFINITIONS,
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
