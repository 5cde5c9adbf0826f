"""Many random histories of a chunk engine (see ``engine_history``), drawn and shortened by Hypothesis.

    python -m tests.property.engine_histories --seed 7 --count 20000 [--steps 60]
    python -m tests.property.engine_histories --replay '[["put", 2, 3], ["crash", 1, 5]]'

A failure prints the one line that replays it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from tests.property.engine_history import History, Operation

STEPS = 30
"""Operations in a history, at most."""
MODULE = "python -m tests.property.engine_histories"

ARGUMENTS = {
    "nothing": 0,
    "put": 2,
    "batch": 2,
    "again": 1,
    "other_bytes": 1,
    "delete": 1,
    "delete_some": 2,
    "abort": 0,
    "get": 1,
    "get_range": 2,
    "compact": 2,
    "compact_all": 0,
    "scrub": 1,
    "scrub_all": 0,
    "wait": 1,
    "crash": 2,
    "cut": 3,
    "kill": 0,
    "close": 0,
    "lose_index": 1,
    "damage_index": 1,
    "fill": 1,
    "free": 0,
    "short_write": 1,
    "fail_sync": 1,
    "fail_directory_sync": 0,
    "fail_put": 1,
    "flip": 2,
    "repair": 1,
    "rot_tombstone": 1,
    "beside": 3,
}
"""How many numbers each operation takes."""
WEIGHTS = {
    "put": 7,
    "batch": 2,
    "delete": 2,
    "delete_some": 3,
    "compact": 5,
    "cut": 3,
    "beside": 3,
    "wait": 2,
}
"""How often an operation is drawn; 1 for the others."""

_NAMES = [name for name in ARGUMENTS for _ in range(WEIGHTS.get(name, 2))]


def operations(steps: int = STEPS) -> st.SearchStrategy[list[Operation]]:
    """Lists of operations."""
    numbers = st.integers(0, 9999)
    one = st.sampled_from(_NAMES).flatmap(lambda name: st.tuples(st.just(name), *[numbers] * ARGUMENTS[name]))
    # Left alone, Hypothesis draws short lists.  One that fails still becomes short: by doing nothing.
    return st.lists(one, min_size=steps * 2 // 3, max_size=steps)


def replay_line(history: list[Operation]) -> str:
    """The command that does this history again."""
    done = [operation for operation in history if operation[0] != "nothing"]
    return f"{MODULE} --replay '{json.dumps(done)}'"


def run_history(history: list[Operation], happened: Counter[str] | None = None) -> None:
    """One history; an error is printed with the line that replays it."""
    try:
        History(happened).run(history)
    except Exception as error:
        error.add_note(replay_line(history))
        raise


def run_many(
    count: int,
    *,
    seed: int | None = None,
    steps: int = STEPS,
    on_history: Callable[[int], object] = lambda done: None,
) -> Counter[str]:
    """So many histories; without a seed always the same ones.  Returns how often what happened."""
    happened: Counter[str] = Counter()
    happened["histories"] = 0

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=seed is None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    @given(operations(steps))
    def every_history_keeps_its_promises(history: list[Operation]) -> None:
        run_history(history, happened)
        happened["histories"] += 1
        on_history(happened["histories"])

    if seed is not None:
        every_history_keeps_its_promises = hypothesis.seed(seed)(every_history_keeps_its_promises)
    every_history_keeps_its_promises()
    return happened


def statistics(happened: Counter[str]) -> str:
    """A line for each thing that happened, by name."""
    return "\n".join(f"{happened[what]:>9}  {what}" for what in sorted(happened))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000, help="histories")
    parser.add_argument("--steps", type=int, default=STEPS, help="operations in a history, at most")
    parser.add_argument("--replay", help="a history that failed, as it was printed")
    options = parser.parse_args()
    if options.replay:
        happened: Counter[str] = Counter()
        run_history([tuple(step) for step in json.loads(options.replay)], happened)
        print(statistics(happened))
        return 0

    def show(done: int) -> None:
        if done % 100 == 0:
            print(f"\r{done} of {options.count} histories", end="", file=sys.stderr, flush=True)

    happened = run_many(options.count, seed=options.seed, steps=options.steps, on_history=show)
    print(file=sys.stderr)
    print(statistics(happened))
    return 0


if __name__ == "__main__":
    sys.exit(main())
