"""A run that fails becomes a small one that fails in the same way, with the line that shows it again."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from sim.__main__ import main
from sim.mutations import MUTATIONS, Mutation
from sim.run import Result, simulate_shape
from sim.shape import Shape
from sim.shrink import Shrinker

BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


def first_failure(mutation: Mutation) -> Result:
    for seed in range(1, mutation.seeds + 1):
        result = simulate_shape(Shape(seed, mutation.faults, mutation=mutation.name))
        if result.violation:
            return result
    raise AssertionError(f"{mutation.name} is not caught")


@pytest.mark.parametrize(
    "mutation", [BY_NAME["reuse a fid after a crash"], BY_NAME["skip one replica"]], ids=lambda m: m.name
)
def test_a_broken_fabric_shrinks_to_a_run_of_few_faults(mutation: Mutation) -> None:
    with mutation.applied():
        failing = first_failure(mutation)
        small = Shrinker(failing, tries_max=35).shrink()
        again = simulate_shape(small.shape)

    assert small.promise == failing.promise
    assert again == small
    assert len(small.faults_done) <= 2
    assert small.begun < failing.begun


def test_the_smallest_set_of_faults_is_found() -> None:
    """A run that fails if faults 5 and 11 are done, and at least 7 operations: nothing else is left of it."""

    def run(shape: Shape) -> Result:
        done = shape.only_faults if shape.only_faults is not None else tuple(range(20))
        begun = 40 if shape.operations is None else shape.operations
        fails = {5, 11} <= set(done) and begun >= 7
        return result_of(shape, "P1: broken" if fails else "", done, begun)

    small = Shrinker(run(Shape(3)), run=run).shrink()

    assert small.shape == Shape(3, (), (5, 11), 1, 1, 1, 7, 0.0)


def test_another_broken_promise_does_not_count() -> None:
    def run(shape: Shape) -> Result:
        done = shape.only_faults if shape.only_faults is not None else (2, 3)
        return result_of(shape, "P1: broken" if len(done) == 2 else "P5: broken", done, 1)

    small = Shrinker(run(Shape(3)), run=run).shrink()

    assert small.promise == "P1"
    assert [number for number, _, _ in small.faults_done] == [2, 3]


def test_it_stops_when_time_is_up() -> None:
    tried: list[Shape] = []

    def run(shape: Shape) -> Result:
        tried.append(shape)
        return result_of(shape, "P1: broken", range(1000), 1000)

    shrinker = Shrinker(run(Shape(3)), lambda: len(tried) > 5, run=run)
    shrinker.shrink()

    assert shrinker.tries == len(tried) - 1 == 5


@pytest.mark.parametrize(
    "shape",
    [
        Shape(7),
        Shape(7, ("kill chunk", "rot"), (0, 3), 1, 1, 2, 40, 2.5),
        Shape(7, only_faults=(), mutation="RW on heartbeat"),
    ],
)
def test_the_line_means_the_shape(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[Shape] = []

    def instead(shape: Shape, trace_lines: int = 0) -> Result:
        run.append(shape)
        return result_of(shape, "", (), 0)

    monkeypatch.setattr("sim.__main__.simulate_shape", instead)
    words = shlex.split(shape.line())

    assert words[:3] == ["python", "-m", "sim"]
    assert main(words[3:]) == 0
    assert run == [shape]


def test_the_command_shrinks(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--seed", "1", "--mutation", "ACK before fsync", "--shrink", "--shrink-seconds", "5"]

    assert main(line) == 1

    shown = capsys.readouterr().out
    assert "shrunk in" in shown
    assert "replay: python -m sim --seed 1 --mutation 'ACK before fsync' --only-faults" in shown


def result_of(shape: Shape, violation: str, done: Any, begun: int) -> Result:
    return Result(
        shape, violation, "", 0, 0, 0, 0, 0, 0.0, [], [], [(number, 0.0, "") for number in done], begun
    )
