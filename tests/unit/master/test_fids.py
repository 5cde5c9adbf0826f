"""No fid is ever given twice, and a fid counts for exactly as long as its lease."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from fabric.master.delta import DeltaStore
from fabric.master.fids import FidLeases
from fabric.node.effects import Effect, Reply
from fabric.wire.messages import ClusterStatus, FidLease, GetStatus, LeaseFids
from sim.store import MemoryStore
from tests.unit.master.bench import MasterBench


def leases_in(effects: list[Effect]) -> list[FidLease]:
    return [e.message for e in effects if isinstance(e, Reply) and isinstance(e.message, FidLease)]


def test_no_fid_is_given_twice_through_a_thousand_crashes_at_every_point() -> None:
    rng = random.Random(7)
    bench = MasterBench()
    bench.hold = True
    given_out: list[FidLease] = []
    crashes = {"before the write": 0, "after the write, before the answer": 0, "after the answer": 0}
    while sum(crashes.values()) < 1_000:
        for _ in range(rng.randint(1, 3)):
            given_out += leases_in(bench.tell(LeaseFids(1_000, "proxy", rng.randint(1, 50))))
        point = rng.choice(list(crashes))
        if point == "after the answer":
            while bench.held:
                given_out += leases_in(bench.write_held())
        elif point == "after the write, before the answer" and bench.held:
            bench.write_held()  # the answer dies with the process
        crashes[point] += 1
        bench.restart()
        bench.write_held()

    assert min(crashes.values()) > 100
    ranges = sorted((lease.first, lease.first + lease.count) for lease in given_out)
    assert len(ranges) > 300
    assert ranges[0][0] >= 1
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))


def test_the_high_water_mark_is_durable_before_the_answer() -> None:
    bench = MasterBench()
    bench.hold = True
    assert bench.tell(LeaseFids(1_000, "proxy", 100)) == []
    assert bench.store.get(b"m/fids") is None

    (lease,) = leases_in(bench.write_held())
    assert bench.store.get(b"m/fids") == (lease.first + lease.count).to_bytes(8, "big")
    bench.hold = False
    assert bench.ask(GetStatus(1_000), ClusterStatus).fid_high_water == lease.first + lease.count


def test_a_lease_says_how_long_it_lasts() -> None:
    assert MasterBench().lease(5) == FidLease(1, 5, 600_000)


def test_leases_in_one_batch_do_not_overlap() -> None:
    bench = MasterBench()
    bench.hold = True
    for count in (10, 20, 30):
        bench.tell(LeaseFids(1_000, "proxy", count))
    leases = leases_in(bench.write_held()) + leases_in(bench.write_held())
    assert [(lease.first, lease.count) for lease in leases] == [(1, 10), (11, 20), (31, 30)]


def test_a_fid_lives_from_its_grant_to_the_end_of_its_lease() -> None:
    fids, delta = FidLeases(lease_s=10.0), DeltaStore(MemoryStore())
    first = fids.reserve(delta, 5, now=0.0)
    assert not fids.is_live(first, now=0.0), "reserved, but nobody was told"

    fids.grant(first, 5, now=1.0)
    assert [fids.is_live(first + n, now=10.9) for n in (-1, 0, 4, 5)] == [False, True, True, False]
    assert not fids.is_live(first, now=11.0)


def test_old_leases_are_forgotten_and_young_ones_are_not() -> None:
    fids, delta = FidLeases(lease_s=10.0), DeltaStore(MemoryStore())
    for now in range(1_000):
        fids.grant(fids.reserve(delta, 10, float(now)), 10, float(now))
    assert len(fids._leases) <= 11
    assert fids.is_live(fids.high_water - 1, now=1_000.0)
    assert fids.is_live(fids.high_water - 90, now=1_000.0)
    assert not fids.is_live(fids.high_water - 101, now=1_000.0)


@given(
    used=st.sets(st.integers(1, 20_000), max_size=30),
    asked=st.sets(st.integers(1, 20_000), max_size=30),
    split=st.integers(2, 20_000),
)
def test_exactly_the_marked_fids_are_used(used: set[int], asked: set[int], split: int) -> None:
    fids, delta = FidLeases(lease_s=10.0), DeltaStore(MemoryStore())
    for count in (split - 1, 20_001 - split):
        fids.grant(fids.reserve(delta, count, 0.0), count, 0.0)
    fids.mark_used(used)
    for fid in used | asked:
        assert fids.is_used(fid) == (fid in used)
