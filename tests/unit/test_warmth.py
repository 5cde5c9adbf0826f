"""Which replica keeps the bytes of a fragment in memory."""

from __future__ import annotations

import random
from collections import Counter

from fabric.warmth import WARM_BYTES_MIN, warm_replica

MEMBERS = ["chunk-2", "chunk-1", "chunk-3"]


def test_the_fragments_of_an_object_take_turns() -> None:
    counts = Counter(warm_replica(fid, WARM_BYTES_MIN, MEMBERS) for fid in range(1000, 1300))
    assert counts == {"chunk-1": 100, "chunk-2": 100, "chunk-3": 100}


def test_whoever_asks_gets_the_same_answer() -> None:
    for fid in range(20):
        shuffled = random.Random(fid).sample(MEMBERS, 3)
        assert warm_replica(fid, 10**6, shuffled) == warm_replica(fid, 10**6, MEMBERS)


def test_a_small_fragment_or_a_lone_member_has_no_such_replica() -> None:
    assert warm_replica(7, WARM_BYTES_MIN - 1, MEMBERS) == ""
    assert warm_replica(7, WARM_BYTES_MIN, ["chunk-1"]) == ""
    assert warm_replica(7, WARM_BYTES_MIN, []) == ""
