"""From runs to ratios, verdicts and bars."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.peers.figures import Outcome, Run, Target, attained, figure_of, order_of, side_of
from bench.peers.plots import bars, times_target
from bench.peers.report import number, value_name
from bench.peers.rows import rows, select
from bench.peers.sides import megabytes, megabytes_beside
from bench.stats import Sample

RATE = "objects_per_s"


def outcome(target: Target, ours: tuple[float, ...], theirs: tuple[float, ...]) -> Outcome:
    sides = [
        side_of(name, [Run({RATE: rate}) for rate in rates]) for name, rates in (("a", ours), ("b", theirs))
    ]
    return Outcome("row", "?", sides, [figure_of(target, *sides)])


def test_a_figure_is_the_ratio_of_two_medians_not_the_median_of_ratios() -> None:
    figure = outcome(Target(RATE, 2.0), (100, 900, 300), (100, 100, 200)).figures[0]

    assert (figure.ours, figure.theirs, figure.ratio) == (300, 100, 3.0)
    assert figure.run_ratios == [1.0, 9.0, 1.5]
    assert (figure.target, figure.attained) == ("≥ 2", True)


@pytest.mark.parametrize(
    ("target", "ratio", "expected"),
    [
        (Target(RATE, 2.0), 2.0, True),
        (Target(RATE, 2.0), 1.999, False),
        (Target(RATE, 1.2, at_least=False), 1.2, True),
        (Target(RATE, 1.2, at_least=False), 1.201, False),
        (Target(RATE), 5.0, None),
        (Target(RATE, 2.0), None, None),
    ],
)
def test_a_target_is_met_on_its_bound_and_not_beyond(
    target: Target, ratio: float | None, expected: bool | None
) -> None:
    assert attained(target, ratio) is expected


def test_a_side_that_gave_nothing_makes_no_ratio_and_no_verdict() -> None:
    figure = outcome(Target(RATE, 1.0), (5,), (0,)).figures[0]

    assert (figure.ratio, figure.attained, figure.run_ratios) == (None, None, [])
    assert times_target(figure) is None


def test_only_values_that_every_run_gave_have_a_median() -> None:
    found = side_of("a", [Run({"x": 1.0, "y": 5.0}), Run({"x": 3.0})])

    assert found.medians == {"x": 2.0}


def test_a_value_that_a_side_did_not_give_cannot_be_held_against_anything() -> None:
    with pytest.raises(KeyError):
        outcome(Target("p99_ms", 1.0), (1,), (1,))


def test_sides_take_turns_forwards_and_backwards() -> None:
    assert [order_of(run, ["a", "b", "c"]) for run in range(3)] == [
        ["a", "b", "c"],
        ["c", "b", "a"],
        ["a", "b", "c"],
    ]


def test_bars_show_how_often_a_target_is_reached_whichever_way_it_goes() -> None:
    higher = outcome(Target(RATE, 2.0), (300,), (100,))
    lower = outcome(Target(RATE, 3.0, at_least=False), (150,), (100,))
    none = outcome(Target(RATE), (1,), (1,))

    assert [(bar.label, bar.times) for bar in bars([higher, lower, none])] == [("row", 1.5), ("row", 2.0)]


def test_values_are_named_for_people() -> None:
    assert value_name("push_megabytes_per_s") == "push MB/s"
    assert value_name("objects_per_s") == "objects/s"
    assert value_name("put_cpu_us") == "put cpu, µs"
    assert value_name("p99_ms") == "p99, ms"
    assert [number(value) for value in (1234.5, 45.67, 1.234)] == ["1,234", "45.7", "1.23"]


def test_every_row_has_a_name_of_its_own_and_can_be_chosen() -> None:
    names = [row.name for row in rows()]

    assert len(set(names)) == len(names)
    assert [row.name for row in select(rows(), ["speedy-put*"])] == [
        "speedy-put-c10",
        "speedy-put-c50",
        "speedy-put-c100",
    ]
    assert [row.name for row in select(rows(), ["pull-256MiB-c4"])] == ["pull-256MiB-c4"]
    assert select(rows(), ["nothing"]) == []


def test_calls_that_failed_end_a_figure_and_are_only_told_beside_it() -> None:
    sample = Sample([0.5], 1_000_000, 0.5, {"DEADLINE": 3, "BUSY": 1})

    with pytest.raises(BenchError, match="DEADLINE"):
        megabytes(sample)
    assert megabytes_beside(sample) == {"megabytes_per_s": 2.0, "failed_calls": 4.0}
    assert megabytes_beside(sample._replace(errors={})) == {"megabytes_per_s": 2.0}
