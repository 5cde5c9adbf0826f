"""The course of it: row after row, the sides of each in turns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

from bench.errors import BenchError
from bench.peers.figures import Outcome, Run, figure_of, order_of, side_of
from bench.peers.rows import Row
from bench.peers.sides import Measure, run_of
from bench.peers.stage import Effort, Stage
from bench.processes import Meter
from fabric.errors import FabricError
from fabric.master.store import StoreError

Watch = Callable[[str], None]
"""Is told what is measured now."""


def measure(
    chosen: Sequence[Row], effort: Effort, work: Path, watch: Watch, done: Callable[[Outcome], None]
) -> list[Outcome]:
    """All rows; one that fails says why, and the rest goes on.  All data is removed at the end.

    ``done`` hears of each as soon as it is there.  Raises OSError when there is no room to begin.
    """
    outcomes = []
    work.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="peers-", dir=work) as temporary,
        Stage(Path(temporary), effort) as stage,
    ):
        for at, row in enumerate(chosen):
            started = perf_counter()
            watch(f"{row.name}: starting and filling")
            try:
                outcome = _row(row, stage, watch)
                if restarted := stage.restarted():
                    raise BenchError(f"restarted while measured: {', '.join(restarted)}")
            except (BenchError, FabricError, StoreError, OSError) as error:
                outcome = Outcome(row.name, row.question, [], [], failure=str(error) or type(error).__name__)
                # What has failed once may not be what it was: the next row begins with new servers.
                stage.end_all_but(frozenset())
            outcome.elapsed_s = round(perf_counter() - started, 1)
            outcomes.append(outcome)
            done(outcome)
            later = chosen[at + 1 :]
            stage.end_all_but(frozenset(name for other in later for name in other.needs))
    return outcomes


def _row(row: Row, stage: Stage, watch: Watch) -> Outcome:
    sides = row.prepare(stage)
    try:
        runs = _runs(row.name, sides.measures, stage, watch)
    finally:
        sides.finish()
    measured = [side_of(name, runs[name]) for name in sides.measures]
    figures = [figure_of(target, measured[0], measured[1]) for target in row.targets]
    return Outcome(row.name, row.question, measured, figures)


def _runs(name: str, measures: Mapping[str, Measure], stage: Stage, watch: Watch) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {side: [] for side in measures}
    for run in range(stage.effort.runs):
        for side in order_of(run, list(measures)):
            watch(f"{name}: {side}, run {run + 1} of {stage.effort.runs}")
            # What the other side left unwritten must not be written out at this one's expense.
            os.sync()
            meter = Meter(stage.pids(), [os.getpid()])
            values = measures[side](run)
            usage = meter.read()
            runs[side].append(run_of(values, {**usage.roles, "bench": usage.clients, "others": usage.others}))
    return runs
