"""The report for people: tables, and a bar while it goes on."""

from __future__ import annotations

from types import TracebackType

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.results import Figure, Report, RoleMemory
from bench.stats import median
from fabric.settings import MIB

WIDE_COLUMNS = 140
"""Below this width a table leaves out what is least needed; all of it is in the result file."""
BUSY_OTHERS_CORES = 0.25
"""Other programs that took more than this make a figure doubtful."""


class ProgressBar:
    """A bar on a terminal; elsewhere a line for each finished figure."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description:36}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(
            *columns, console=console, disable=not console.is_terminal, transient=True, refresh_per_second=4
        )
        self._task = self._progress.add_task("", total=steps)
        self._begun = 0

    def step(self, text: str) -> None:
        """One measurement begins."""
        self._progress.update(self._task, description=text, completed=self._begun)
        self._begun += 1

    def finished(self, figure: Figure) -> None:
        """All runs of a case are done."""
        if not self._console.is_terminal:
            self._console.print(
                f"{figure.name:24} {_number(figure.rate_per_s):>9} objects/s"
                f" {_number(figure.megabytes_per_s):>9} MB/s"
                f"  p50 {figure.p50_ms:g} ms  p99 {figure.p99_ms:g} ms",
                highlight=False,
                soft_wrap=True,
            )

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def show(report: Report, console: Console) -> None:
    """Everything in tables."""
    _show_machine(report, console)
    for front, title in (("store", "Through the proxy, as a Python client"), ("http", "Over HTTP, by curl")):
        figures = [figure for figure in report.figures if figure.front == front]
        if figures:
            console.print(figure_table(title, figures, wide=console.width >= WIDE_COLUMNS))
    console.print(memory_table(report.memory))
    for warning in warnings(report):
        console.print(f"[yellow]{escape(warning)}[/]")
    missed = [figure.name for figure in report.figures if figure.attained is False]
    if missed:
        console.print(f"[red]below target:[/] {', '.join(missed)}")


def figure_table(title: str, figures: list[Figure], *, wide: bool) -> Table:
    """One line a figure: medians, and how much of each limit it reaches."""
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("figure", no_wrap=True)
    limits = [name for name in ("disk", "wire", "http") if any(name in figure.limits for figure in figures)]
    headings = ["objects/s", "MB/s", "p50 ms", "p99 ms", *(f"of {name}" for name in limits)]
    for heading in headings + ["±"] * wide:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("target", no_wrap=True)
    if wide:
        table.add_column("busiest, in cores", no_wrap=True)
    for figure in figures:
        table.add_row(
            figure.name + (f" [red]{figure.errors} errors[/]" if figure.errors else ""),
            _number(figure.rate_per_s),
            _number(figure.megabytes_per_s),
            f"{figure.p50_ms:.2f}",
            f"{figure.p99_ms:.2f}",
            *(_limit(figure, name, wide) for name in limits),
            *([f"{figure.spread / 2:.0%}"] * wide),
            _verdict(figure),
            *([_busiest(figure)] * wide),
        )
    return table


def memory_table(memory: list[RoleMemory]) -> Table:
    """Peak resident memory of each role, over the whole benchmark."""
    table = Table(
        title="Resident memory, MiB", title_justify="left", header_style="bold", box=box.SIMPLE_HEAD
    )
    table.add_column("role")
    for heading in ("at start", "peak", "at end"):
        table.add_column(heading, justify="right")
    for role in memory:
        values = (role.at_start_bytes, role.peak_bytes, role.at_end_bytes)
        table.add_row(role.name, *(f"{value / MIB:.0f}" for value in values))
    return table


def warnings(report: Report) -> list[str]:
    """What makes the figures worth less."""
    found = []
    if report.restarted:
        found.append(f"restarted while measured: {', '.join(report.restarted)}; see the errors")
    disturbed = [
        figure.name
        for figure in report.figures
        if figure.front == "store" and _others(figure) > BUSY_OTHERS_CORES
    ]
    if disturbed:
        found.append(f"other programs used the processor during {', '.join(disturbed)}")
    if report.machine.file_system.startswith(("tmpfs", "ramfs")):
        found.append("the data lay in memory: nothing was durable; choose a disk with --work")
    if report.quick:
        found.append("--quick: a smoke test; its figures say nothing about speed")
    return found


def _show_machine(report: Report, console: Console) -> None:
    machine, disk, revision = report.machine, report.disk, report.revision
    changed = " with changes" if revision.changed else ""
    console.print(
        f"\n{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB; {machine.kernel};"
        f" Python {machine.python}; {machine.file_system};"
        f" commit {revision.commit[:10] or 'unknown'}{changed};"
        f" {report.groups} group(s) of {report.replicas} replicas, {report.clients} client process(es)",
        f"\ndisk alone: {_number(disk.fdatasync_per_s)} fdatasync/s of 1 KiB appends"
        f" (p99 {disk.fdatasync_p99_ms:g} ms); 4 MiB appends, each made durable:"
        f" {_number(disk.one_copy_megabytes_per_s)} MB/s to one file,"
        f" {_number(disk.three_copies_megabytes_per_s)} MB/s to each of three",
        highlight=False,
    )


def _limit(figure: Figure, name: str, wide: bool) -> str:
    """``58% (2,600/s)``: the part of the limit that is reached, and the limit when there is room."""
    reached = figure.ratios.get(name)
    if reached is None:
        return ""
    if not wide:
        return f"{reached:.0%}"
    runs = figure.limits[name]
    if figure.object_bytes < MIB:
        return f"{reached:.0%} ({_number(median(run.rate_per_s for run in runs))}/s)"
    return f"{reached:.0%} ({_number(median(run.megabytes_per_s for run in runs))} MB/s)"


def _verdict(figure: Figure) -> str:
    colour = {True: "green", False: "red", None: "yellow"}[figure.attained]
    return f"[{colour}]{figure.target}[/]" if figure.target else ""


def _busiest(figure: Figure) -> str:
    names = {name for run in figure.runs if run.cpu for name in run.cpu.roles}
    cores = {
        name: median(run.cpu.roles.get(name, 0.0) for run in figure.runs if run.cpu) for name in sorted(names)
    }
    cores["client"] = median(run.cpu.clients for run in figure.runs if run.cpu)
    top = sorted(cores.items(), key=lambda item: -item[1])[:2]
    return ", ".join(f"{name} {used:.2f}" for name, used in top)


def _others(figure: Figure) -> float:
    return median(run.cpu.others for run in figure.runs if run.cpu)


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def heading(report_path: str, elapsed_s: float) -> str:
    """The last line."""
    return f"{elapsed_s:.0f} s; every run is in {report_path}"
