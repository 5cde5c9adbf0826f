"""``python -m bench.peers.plots [RESULT]``: draws a result file as SVG into ``docs/figures``.

Two pictures: how far each figure is from its target, and what each system does, side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from bench.machine import ROOT
from bench.peers.figures import Figure, Outcome
from bench.peers.report import number, value_name
from bench.peers.results import Report, load, newest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = ROOT / "docs" / "figures"
RESULTS = ROOT / "bench" / "results"
MET, MISSED, OTHER, BESIDE = "#2a7f62", "#c0392b", "#7f8c8d", "#bdc3c7"
PANELS = (
    ("objects_per_s", "objects of 1 KiB, a second", ("put-1KiB", "get-1KiB")),
    ("megabytes_per_s", "256 MiB, MB/s", ("put-256MiB", "get-256MiB", "push-http", "pull-256MiB")),
    ("megabytes_per_s", "files of 16 MiB (Speedy's test), MB/s", ("speedy",)),
    ("requests_per_s", "small requests a second", ("manifest-by-tag", "blob-head")),
)


class Bar(NamedTuple):
    """How often a figure reaches its target: 1 is just met, 2 is twice as good."""

    label: str
    times: float
    text: str


@click.command()
@click.argument("result", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=FIGURES, help="Where to.")
def main(result: Path | None, out: Path) -> None:
    """Draw RESULT, or the newest result of bench.peers."""
    result = result or newest(RESULTS)
    if result is None:
        raise click.ClickException("there is no result yet: run python -m bench.peers")
    try:
        report = load(result)
    except (OSError, msgspec.DecodeError) as error:
        raise click.ClickException(f"{result}: {error}") from error
    out.mkdir(parents=True, exist_ok=True)
    for path in (draw_targets(report, out), draw_rates(report, out)):
        click.echo(path)


def bars(outcomes: Sequence[Outcome]) -> list[Bar]:
    """One for each figure that has a target and a ratio."""
    found = []
    for outcome in outcomes:
        for figure in outcome.figures:
            times = times_target(figure)
            if times is not None:
                label = (
                    outcome.row if len(outcome.figures) == 1 else f"{outcome.row}: {value_name(figure.value)}"
                )
                found.append(Bar(label, times, f"{figure.ratio:.2f} (target {figure.target})"))
    return found


def times_target(figure: Figure) -> float | None:
    """How often the target is reached, whichever way it goes; None without a target or a ratio."""
    if not figure.target or not figure.ratio:
        return None
    sign, bound = figure.target.split(" ")
    return figure.ratio / float(bound) if sign == "≥" else float(bound) / figure.ratio


def draw_targets(report: Report, directory: Path) -> Path:
    """The ratios against their targets."""
    found = bars(report.outcomes)[::-1]
    figure, axes = _canvas(9, 1.2 + 0.28 * len(found))
    colours = [MET if bar.times >= 1 else MISSED for bar in found]
    axes.barh([bar.label for bar in found], [bar.times for bar in found], color=colours)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("of the target: 1 is met, more is better")
    for at, bar in enumerate(found):
        axes.annotate(
            bar.text, (max(bar.times, 1), at), (4, 0), textcoords="offset points", va="center", size=7
        )
    axes.margins(x=0.25)
    return _save(figure, directory / "peers-targets.svg", report)


def draw_rates(report: Report, directory: Path) -> Path:
    """The medians of every side, a panel for each kind of work."""
    panels = [(title, _groups(report.outcomes, value, rows)) for value, title, rows in PANELS]
    panels = [(title, groups) for title, groups in panels if groups]
    heights = [sum(len(sides) + 0.6 for _, sides in groups) for _, groups in panels]
    figure, all_axes = _canvas(9, 0.24 * sum(heights) + 0.9 * len(panels) + 0.4, heights or [1])
    for axes, (title, groups) in zip(all_axes if panels else [], panels, strict=True):
        _draw_groups(axes, groups)
        axes.set_title(title, loc="left", size=9)
    return _save(figure, directory / "peers-rates.svg", report)


def _groups(
    outcomes: Sequence[Outcome], value: str, rows: Sequence[str]
) -> list[tuple[str, list[tuple[str, float]]]]:
    """Row -> side and median, of the rows whose names begin like one of these."""
    return [
        (outcome.row, [(side.name, side.medians[value]) for side in outcome.sides if value in side.medians])
        for outcome in outcomes
        if any(outcome.row.startswith(row) for row in rows)
        and any(value in side.medians for side in outcome.sides)
    ]


def _draw_groups(axes: Axes, groups: list[tuple[str, list[tuple[str, float]]]]) -> None:
    at, ticks, labels = 0.0, [], []
    for row, sides in groups:
        for index, (name, value) in enumerate(sides):
            axes.barh(at, value, color=(MET, OTHER, BESIDE, BESIDE)[min(index, 3)], height=0.9)
            axes.annotate(number(value), (value, at), (3, 0), textcoords="offset points", va="center", size=7)
            ticks.append(at)
            labels.append(f"{row}  {name}" if index == 0 else name)
            at += 1
        at += 0.6
    axes.set_yticks(ticks, labels, size=7)
    axes.invert_yaxis()
    axes.margins(x=0.12)


def _canvas(width: float, height: float, panels: Sequence[float] | None = None) -> tuple[Any, Any]:
    """A figure and its axes, or a list of axes below each other, of such relative heights."""
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise click.ClickException("matplotlib is not installed: pip install '.[bench]'") from error
    # The same result gives the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "fabric", "svg.fonttype": "none", "font.size": 8})
    figure = Canvas(figsize=(width, height), layout="constrained")
    if panels is None:
        axes = figure.subplots()
        found = [axes]
    else:
        found = list(figure.subplots(len(panels), 1, squeeze=False, height_ratios=list(panels))[:, 0])
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found[0] if panels is None else found


def _save(figure: Any, path: Path, report: Report) -> Path:
    machine = report.machine
    note = f"{machine.cpu}, {machine.cores} cores, one disk; commit {report.revision.commit[:10]}"
    figure.suptitle(note + ("; a quick run, a hint only" if report.quick else ""), size=7, x=0.01, ha="left")
    figure.savefig(path, format="svg", metadata={"Date": None})
    return path


if __name__ == "__main__":
    main()
