"""Statistics of measurements.  Pure: numbers in, numbers out.

A *sample* is what one run of a closed loop of workers gave: one latency per operation that
succeeded, the bytes that these moved, and the time that all of it took.  A rate is operations over that time,
never the inverse of a mean latency.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """One run: latencies in seconds, bytes moved, elapsed seconds, error codes with their counts."""

    latencies_s: Sequence[float]
    bytes_moved: int
    elapsed_s: float
    errors: Mapping[str, int] = {}

    @property
    def rate_per_s(self) -> float:
        """Operations per second."""
        return len(self.latencies_s) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def megabytes_per_s(self) -> float:
        """Millions of bytes per second."""
        return self.bytes_moved / 1e6 / self.elapsed_s if self.elapsed_s > 0 else 0.0


def merge(samples: Sequence[Sample]) -> Sample:
    """Samples of clients that ran side by side, as one: operations add up, the longest time counts."""
    errors: Counter[str] = Counter()
    for sample in samples:
        errors.update(sample.errors)
    return Sample(
        [latency for sample in samples for latency in sample.latencies_s],
        sum(sample.bytes_moved for sample in samples),
        max((sample.elapsed_s for sample in samples), default=0.0),
        dict(errors),
    )


def percentile(values: Iterable[float], fraction: float) -> float:
    """The smallest value that at least ``fraction`` of all values do not exceed (nearest rank).

    Always one of the values; 0.0 when there are none.  Raises ValueError unless 0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"a fraction lies above 0 and at most at 1, not at {fraction}")
    ordered = sorted(values)
    if not ordered:
        return 0.0
    # The product may miss a whole number by a rounding error; a rank must not jump because of it.
    rank = math.ceil(round(fraction * len(ordered), 9))
    return ordered[rank - 1]


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle; 0.0 when there are none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> float:
    """How far runs differ: (largest - smallest) / median; 0.0 when that says nothing."""
    middle = median(values)
    return (max(values) - min(values)) / middle if middle > 0 else 0.0


def ratio(figure: float, limit: float) -> float | None:
    """Figure over limit; None when the limit was not measured."""
    return figure / limit if limit > 0 else None


def shares(total: int, parts: int) -> list[int]:
    """Divide ``total`` workers over ``parts`` clients as evenly as can be; clients with none are left out."""
    whole, rest = divmod(total, parts)
    return [share for share in (whole + (index < rest) for index in range(parts)) if share]
