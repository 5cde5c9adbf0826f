"""Statistics of the benchmark."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats import Sample, median, merge, percentile, ratio, shares, spread

VALUES = st.lists(st.floats(0, 1e9), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_percentiles_are_nearest_ranks(fraction: float, expected: float) -> None:
    assert percentile(range(100, 0, -1), fraction) == expected


def test_a_rank_does_not_jump_because_of_a_rounding_error() -> None:
    assert 0.07 * 100 > 7  # what the rounding is for
    assert percentile(range(1, 101), 0.07) == 7


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_a_fraction_outside_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        percentile([1.0], fraction)


def test_nothing_measured_gives_zeros() -> None:
    assert (percentile([], 0.99), median([]), spread([])) == (0.0, 0.0, 0.0)
    assert Sample([], 0, 0.0).rate_per_s == Sample([], 0, 0.0).megabytes_per_s == 0.0


@given(VALUES, st.floats(0.001, 1))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], fraction: float) -> None:
    found = percentile(values, fraction)

    assert found in values
    assert sum(value <= found for value in values) >= fraction * len(values) - 1e-6
    assert sum(value < found for value in values) < fraction * len(values) + 1e-6


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], 3.0), ([9.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 100.0], 3.0)]
)
def test_median(values: list[float], expected: float) -> None:
    assert median(values) == expected


def test_spread_is_relative_to_the_median() -> None:
    assert spread([90.0, 100.0, 130.0]) == pytest.approx(0.4)
    assert spread([0.0, 0.0]) == 0.0


def test_a_rate_is_operations_over_elapsed_time() -> None:
    sample = Sample([0.5, 0.5, 0.5, 0.5], 4_000_000, 1.0)

    assert sample.rate_per_s == 4.0
    assert sample.megabytes_per_s == 4.0


def test_clients_side_by_side_add_up_over_the_longest_time() -> None:
    both = merge(
        [Sample([0.1, 0.2], 20, 1.0, {"BUSY": 1}), Sample([0.3], 10, 2.0, {"BUSY": 2, "DEADLINE": 1})]
    )

    assert both == Sample([0.1, 0.2, 0.3], 30, 2.0, {"BUSY": 3, "DEADLINE": 1})
    assert both.rate_per_s == 1.5
    assert merge([]) == Sample([], 0, 0.0, {})


def test_a_ratio_needs_a_limit() -> None:
    assert ratio(50.0, 200.0) == 0.25
    assert ratio(50.0, 0.0) is None


@pytest.mark.parametrize(("total", "parts", "expected"), [(16, 1, [16]), (16, 3, [6, 5, 5]), (1, 4, [1])])
def test_workers_are_shared_evenly(total: int, parts: int, expected: list[int]) -> None:
    assert shares(total, parts) == expected
