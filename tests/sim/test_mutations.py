"""The checkers find what they are for: broken fabrics, each caught within a stated number of seeds."""

from __future__ import annotations

import pytest

from sim.mutations import MUTATIONS, Mutation
from sim.run import simulate


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_fabric_is_caught(mutation: Mutation) -> None:
    with mutation.applied():
        for seed in range(1, mutation.seeds + 1):
            violation = simulate(seed, mutation.faults).violation
            if violation:
                break

    assert violation.startswith(mutation.promises), violation or f"not caught within {mutation.seeds} seeds"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_same_faults_do_not_harm_a_whole_fabric(mutation: Mutation) -> None:
    assert simulate(1, mutation.faults).violation == ""


def test_there_are_sixteen() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == 16
