"""What a row measures: its sides, by name, each a function that does one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.errors import BenchError
from bench.peers.figures import Run
from bench.stats import Sample, percentile

Values = dict[str, float]
Measure = Callable[[int], Values]
"""Does run number n and returns its values."""


class Sides(NamedTuple):
    """The sides, the fabric first; and what is to be done when all runs are over."""

    measures: dict[str, Measure]
    finish: Callable[[], None] = lambda: None
    """Raises BenchError when what was stored is not what was sent."""


def objects(sample: Sample) -> Values:
    """Rate and latencies of small things.  Raises BenchError when some failed."""
    _check(sample)
    return {"objects_per_s": round(sample.rate_per_s, 2), **latencies(sample)}


def requests(sample: Sample) -> Values:
    """Rate and latencies of requests."""
    return {"requests_per_s": round(sample.rate_per_s, 2), **latencies(sample)}


def megabytes(sample: Sample) -> Values:
    """Rate of large things; MB are millions of bytes, counted once.  Raises BenchError when some failed."""
    _check(sample)
    return {"megabytes_per_s": round(sample.megabytes_per_s, 2)}


def megabytes_beside(sample: Sample) -> Values:
    """Of a side that is only shown: calls that failed are told, and end nothing."""
    rate = {"megabytes_per_s": round(sample.megabytes_per_s, 2)}
    return rate | ({"failed_calls": float(sum(sample.errors.values()))} if sample.errors else {})


def latencies(sample: Sample) -> Values:
    """Of single operations, in milliseconds."""
    return {
        name: round(percentile(sample.latencies_s, fraction) * 1000, 3)
        for name, fraction in (("p50_ms", 0.50), ("p99_ms", 0.99))
    }


def _check(sample: Sample) -> None:
    if sample.errors:
        raise BenchError(f"operations failed: {sample.errors}")


def run_of(values: Values, cpu: dict[str, float]) -> Run:
    """One run; processes that used less than a fiftieth of a core are left out."""
    return Run(values, {name: cores for name, cores in cpu.items() if cores >= 0.02})
