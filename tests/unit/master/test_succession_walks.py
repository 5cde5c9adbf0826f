"""Random changes of a group's members lose no acknowledged write."""

from __future__ import annotations

import pytest

from tests.unit.master.succession_walk import SuccessionWalk


@pytest.mark.parametrize("seed", range(100))
def test_a_server_that_is_told_rw_holds_every_acknowledged_write_and_all_heals(seed: int) -> None:
    walk = SuccessionWalk(seed)
    walk.run()
    walk.heal()


def test_the_walks_do_change_members_and_do_write() -> None:
    walks = [SuccessionWalk(seed) for seed in range(60)]
    for walk in walks:
        walk.run()
    told = [text for walk in walks for text in walk.changes]
    assert sum(len(walk.acknowledged) for walk in walks) > 300
    assert sum("becomes a member in the place of" in text for text in told) > 20
    assert sum("goes on without" in text for text in told) > 10
    assert sum(text.endswith("becomes a member") for text in told) > 10
