"""What operators order in the simulator is done there: otherwise runs with operators would prove nothing."""

from __future__ import annotations

from typing import Any

import pytest

from fabric.wire.messages import Relocated
from sim.run import Run
from sim.shape import Shape
from sim.watcher import Watcher

SEED = 3


class Moves(Watcher):
    """Counts fragments that objects came to name in another group."""

    def __init__(self) -> None:
        self.count = 0

    def on_reply(self, server: Any, asker: Any, request: Any, payload: Any, answer: Any, data: Any) -> None:
        if isinstance(answer, Relocated):
            self.count += sum(answer.named)


def run_of(*kinds: str, seed: int = SEED) -> tuple[Run, Moves]:
    run, moves = Run(Shape(seed, kinds, seconds=12.0)), Moves()
    run.world.watchers.add(moves)
    assert run.judged() == ""
    return run, moves


def test_an_added_group_takes_fragments() -> None:
    run, moves = run_of("add group")

    group = run.cluster.reserve_group
    assert run.cluster.groups() == [1, 2, group]
    assert all(host.live() for host in run.cluster.members(group))
    assert moves.count == 0


def test_a_rebalance_moves_fragments_to_an_added_group() -> None:
    run, moves = run_of("add group", "audit or rebalance", seed=8)

    assert moves.count > 0
    assert all(host.live() for host in run.cluster.members(run.cluster.reserve_group))


def test_a_drained_group_ends_empty_and_its_fragments_lie_elsewhere() -> None:
    run, moves = run_of("drain group")

    drained = [number for number, group in run.cluster.masters_groups.items() if group.draining]
    assert drained
    assert moves.count > 0
    assert not any(host.live() for number in drained for host in run.cluster.members(number))


@pytest.mark.parametrize("kind", ["replace node", "drain node", "add node"])
def test_a_spare_becomes_a_member_with_all_that_its_group_holds(kind: str) -> None:
    run, _ = run_of(kind)

    members = [host for group in run.cluster.groups() for host in run.cluster.members(group)]
    joined = [spare for spare in run.cluster.spares if spare in members]
    assert joined
    assert all(spare.live() for spare in joined)
