"""From readings to ratios and verdicts.  Pure.

A *row* asks one question.  It has two *sides* or more: the first is the fabric, the second is what it is
held against, the others are only shown.  Each side is measured in turns, A B, B A, A B, and every *run*
gives one value or more by name.  A *figure* is the ratio of two medians, beside its target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from bench.stats import median, ratio


class Target(NamedTuple):
    """What the ratio of one value must be."""

    value: str
    """Name of the value, with its unit at the end: ``objects_per_s``, ``p99_ms``."""
    bound: float | None = None
    """None: there is no target, the ratio is only shown."""
    at_least: bool = True
    """Otherwise the ratio is to be at most the bound."""

    def __str__(self) -> str:
        return "" if self.bound is None else f"{'≥' if self.at_least else '≤'} {self.bound:g}"


class Run(msgspec.Struct, frozen=True):
    """One measurement of one side."""

    values: dict[str, float]
    cpu: dict[str, float] = {}
    """Process -> cores that it used meanwhile; those that used next to nothing are left out."""


class Side(msgspec.Struct):
    """All runs of one side."""

    name: str
    runs: list[Run]
    medians: dict[str, float]


class Figure(msgspec.Struct, frozen=True):
    """A ratio, its target, and how the runs of it differed."""

    value: str
    ours: float
    theirs: float
    ratio: float | None
    """None when the other side has nothing to divide by."""
    run_ratios: list[float]
    """Of each pair of runs: how steady the ratio is."""
    target: str
    attained: bool | None
    """None when there is no target, or no ratio."""


class Outcome(msgspec.Struct):
    """What came of a row."""

    row: str
    question: str
    sides: list[Side]
    figures: list[Figure]
    elapsed_s: float = 0.0
    failure: str = ""
    """Why it could not be measured; then there are no sides and no figures."""


def side_of(name: str, runs: Sequence[Run]) -> Side:
    """Medians of each value that every run gave."""
    names = [value for value in runs[0].values if all(value in run.values for run in runs)] if runs else []
    medians = {value: round(median(run.values[value] for run in runs), 4) for value in names}
    return Side(name, list(runs), medians)


def figure_of(target: Target, ours: Side, theirs: Side) -> Figure:
    """Hold one side against the other.  Raises KeyError when one did not give the value."""
    value = target.value
    found = ratio(ours.medians[value], theirs.medians[value])
    pairs = zip(ours.runs, theirs.runs, strict=False)
    each = [ratio(mine.values[value], other.values[value]) for mine, other in pairs]
    return Figure(
        value=value,
        ours=ours.medians[value],
        theirs=theirs.medians[value],
        ratio=None if found is None else round(found, 3),
        run_ratios=[round(one, 3) for one in each if one is not None],
        target=str(target),
        attained=attained(target, found),
    )


def attained(target: Target, found: float | None) -> bool | None:
    """Is the target met?  None when there is none, or nothing to hold against it."""
    if target.bound is None or found is None:
        return None
    return found >= target.bound if target.at_least else found <= target.bound


def order_of(run: int, sides: Sequence[str]) -> list[str]:
    """Forwards and backwards in turn, so that no side always comes after the same other one."""
    return list(sides) if run % 2 == 0 else list(reversed(sides))
