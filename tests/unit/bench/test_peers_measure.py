"""The course of it: turns, failures, what is ended when."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.peers.figures import Outcome, Target
from bench.peers.measure import measure
from bench.peers.rows import QUICK, Row
from bench.peers.sides import Sides, Values
from bench.peers.stage import Stage

EFFORT = QUICK._replace(runs=2)


class Story:
    """What happened, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def server(self, name: str) -> Iterator[str]:
        self.events.append(f"start {name}")
        yield name
        self.events.append(f"end {name}")

    def row(self, name: str, *needs: str, fails: str = "", finish: str = "") -> Row:
        def prepare(stage: Stage) -> Sides:
            for need in needs:
                stage._once(need, lambda need=need: self.server(need))  # type: ignore[misc]

            def side(label: str, value: float, run: int) -> Values:
                self.events.append(f"{name} {label}{run}")
                if fails:
                    raise BenchError(fails)
                return {"x_per_s": value}

            def end() -> None:
                self.events.append(f"finish {name}")
                if finish:
                    raise BenchError(finish)

            return Sides({"a": lambda run: side("a", 6, run), "b": lambda run: side("b", 3, run)}, end)

        return Row(name, "?", (Target("x_per_s", 2.0),), frozenset(needs), prepare)

    def measure(self, rows: list[Row], work: Path) -> list[Outcome]:
        return measure(rows, EFFORT, work, lambda _: None, lambda outcome: self.events.append(outcome.row))


def test_sides_take_turns_and_servers_end_with_the_last_row_that_needs_them(tmp_path: Path) -> None:
    story = Story()

    first, second = story.measure([story.row("1", "s", "t"), story.row("2", "s")], tmp_path)

    assert story.events == [
        "start s", "start t", "1 a0", "1 b0", "1 b1", "1 a1", "finish 1", "1", "end t",
        "2 a0", "2 b0", "2 b1", "2 a1", "finish 2", "2", "end s",
    ]  # fmt: skip
    assert [figure.ratio for outcome in (first, second) for figure in outcome.figures] == [2.0, 2.0]
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_fails_says_why_and_the_next_begins_with_new_servers(tmp_path: Path) -> None:
    story = Story()

    failed, good = story.measure([story.row("1", "s", fails="broken"), story.row("2", "s")], tmp_path)

    assert (failed.failure, failed.figures, failed.sides) == ("broken", [], [])
    assert story.events[:6] == ["start s", "1 a0", "finish 1", "end s", "1", "start s"]
    assert (good.failure, good.figures[0].attained) == ("", True)


def test_bytes_that_come_back_wrong_in_the_end_make_no_figure(tmp_path: Path) -> None:
    (outcome,) = (story := Story()).measure([story.row("1", finish="other bytes")], tmp_path)

    assert (outcome.failure, outcome.figures) == ("other bytes", [])


def test_a_mistake_of_ours_ends_everything_and_is_not_hidden(tmp_path: Path) -> None:
    story = Story()
    row = story.row("1", "s")._replace(targets=(Target("no_such_value"),))

    with pytest.raises(KeyError):
        story.measure([row], tmp_path)

    assert story.events[-1] == "end s"
    assert list(tmp_path.iterdir()) == []
