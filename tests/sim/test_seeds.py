"""Whole clusters under faults: every seed must keep every promise.

``python -m sim --minutes 10 --first 1000`` runs more of them.
"""

from __future__ import annotations

import pytest

from sim.run import simulate

SEEDS = 300
BLOCK = 20


@pytest.mark.parametrize("first", range(1, SEEDS + 1, BLOCK))
def test_all_promises_are_kept(first: int) -> None:
    for seed in range(first, first + BLOCK):
        result = simulate(seed)
        assert result.violation == "", f"{result.violation}\n{result.replay}\n" + "\n".join(
            result.trace[-60:]
        )
        assert result.acknowledged + result.unknown > 0, f"seed {seed} has tested nothing"
