"""The tables for people: figures with their targets, then the medians of every side."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.peers.figures import Figure, Outcome, Side
from bench.peers.results import Report

UNITS = {"us": "µs"}
BUSIEST = 4


def show(report: Report, console: Console) -> None:
    """Everything."""
    machine, revision = report.machine, report.revision
    changed = " with changes" if revision.changed else ""
    console.print(
        f"\n{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB; {machine.kernel};"
        f" Python {machine.python}; {machine.file_system}; load before {machine.load_before:g};"
        f" commit {revision.commit[:10] or 'unknown'}{changed}; medians of {report.effort.runs} run(s)",
        highlight=False,
    )
    measured = [outcome for outcome in report.outcomes if not outcome.failure]
    console.print(figure_table(measured))
    console.print(side_table(measured))
    for outcome in report.outcomes:
        if outcome.failure:
            console.print(f"[red]not measured:[/] {outcome.row}: {escape(outcome.failure)}", highlight=False)
    for warning in warnings(report):
        console.print(f"[yellow]{escape(warning)}[/]", highlight=False)


def figure_table(outcomes: Sequence[Outcome]) -> Table:
    """One line a figure."""
    table = Table(title="Side by side", title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("row", "against", "value"):
        table.add_column(heading, no_wrap=True)
    for heading in ("fabric", "other", "ratio", "of each run", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for outcome in outcomes:
        for figure in outcome.figures:
            table.add_row(
                outcome.row,
                outcome.sides[1].name,
                value_name(figure.value),
                number(figure.ours),
                number(figure.theirs),
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                " ".join(f"{one:.2f}" for one in figure.run_ratios),
                figure.target,
                verdict(figure),
            )
    return table


def side_table(outcomes: Sequence[Outcome]) -> Table:
    """One line a side: all its medians, and which processes were busiest."""
    table = Table(title="Every side", title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("row", "side", "medians"):
        table.add_column(heading)
    table.add_column("busiest, in cores")
    for outcome in outcomes:
        for side in outcome.sides:
            medians = ", ".join(f"{value_name(name)} {number(value)}" for name, value in side.medians.items())
            table.add_row(outcome.row, side.name, medians, busiest(side))
    return table


def busiest(side: Side) -> str:
    """The processes that used most, in the run that is in the middle of the list."""
    cpu = side.runs[len(side.runs) // 2].cpu
    top = sorted(cpu.items(), key=lambda item: -item[1])[:BUSIEST]
    return ", ".join(f"{name} {cores:.2f}" for name, cores in top)


def verdict(figure: Figure) -> str:
    """Met or not."""
    return {True: "[green]met[/]", False: "[red]NOT met[/]", None: ""}[figure.attained]


def warnings(report: Report) -> list[str]:
    """What makes the figures worth less."""
    found = []
    if report.machine.load_before > 0.5:
        found.append(f"the machine was busy before: load {report.machine.load_before:g}")
    if report.machine.file_system.startswith(("tmpfs", "ramfs")):
        found.append("the data lay in memory: nothing was durable; choose a disk with --work")
    if report.quick:
        found.append("--quick: one short run of each; take the figures as a hint")
    return found


def value_name(name: str) -> str:
    """``megabytes_per_s`` -> ``MB/s``, ``put_cpu_us`` -> ``put cpu, µs``."""
    if name.endswith("megabytes_per_s"):
        return name.replace("megabytes_per_s", "MB/s").replace("_", " ")
    if name.endswith("_per_s"):
        return name.removesuffix("_per_s") + "/s"
    stem, _, unit = name.rpartition("_")
    return f"{stem.replace('_', ' ')}, {UNITS.get(unit, unit)}"


def number(value: float) -> str:
    """Three digits or so."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
