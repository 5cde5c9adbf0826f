"""What a measurement gives: a figure, its runs, and what it should be.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.stats import median


class Figure(msgspec.Struct):
    """One line of the table."""

    name: str
    value: float
    unit: str
    target: float
    at_least: bool
    """Whether the value must reach the target; else it must stay below."""
    runs: list[float]
    beside: str = ""
    """What was measured beside it, in words and numbers."""
    others: float = 0.0
    """Cores that other programs, and the kernel on its own, used meanwhile: much of it disturbs."""

    @property
    def attained(self) -> bool:
        return self.value >= self.target if self.at_least else self.value < self.target

    @property
    def target_text(self) -> str:
        return f"{'≥' if self.at_least else '<'} {self.target:g} {self.unit}"


def figure(
    name: str, runs: Sequence[float], unit: str, *, target: float, at_least: bool, beside: str = ""
) -> Figure:
    """The median of the runs against its target."""
    rounded = [round(run, 4) for run in runs]
    return Figure(name, round(median(rounded), 4), unit, target, at_least, rounded, beside)
