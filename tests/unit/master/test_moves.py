"""What is handed out to be moved: everything once, within the rate, and again what was not moved."""

from __future__ import annotations

from typing import Any

from fabric.master import keys, references
from fabric.master.delta import DeltaStore
from fabric.master.moves import LEASE_S, SCAN_MAX, Moves
from fabric.master.records import encode
from fabric.settings import FRAGMENTS_PER_PAGE_MAX, MIB, UPKEEP_RECORD_BYTES
from fabric.wire.messages import FragmentRef, Move
from sim.store import MemoryStore

FAST: Any = float("inf")


def stored(*pages: list[FragmentRef]) -> MemoryStore:
    """Objects of one page each, with ids from 1 on."""
    store = MemoryStore()
    delta = DeltaStore(store)
    for object_id, page in enumerate(pages, 1):
        delta.put(keys.page_key(object_id, 0), encode(page))
        references.add(delta, object_id, 0, page)
    store.write(delta.changes)
    return store


def refs(group: int, *fids: int, length: int = 100) -> list[FragmentRef]:
    return [FragmentRef(group, fid, length, fid) for fid in fids]


def drained(store: MemoryStore, *groups: int, rate: int = FAST) -> Moves:
    moves = Moves(store, rate)
    moves.set_sources([(group, 0, 0) for group in groups])
    return moves


def fids(taken: list[Move]) -> list[int]:
    return sorted(move.fragment.fid for move in taken)


def test_everything_of_a_drained_group_is_handed_out_once() -> None:
    everything = range(1, 600)
    moves = drained(stored(*[refs(1, fid) for fid in everything], refs(2, 900)), 1)
    seen: list[int] = []
    for _ in range(20):
        taken, _ = moves.take(MIB, 0.0)
        assert len(taken) <= FRAGMENTS_PER_PAGE_MAX
        assert all(move.target == 0 for move in taken)
        seen += fids(taken)
    assert sorted(seen) == list(everything)
    taken, pause_s = moves.take(MIB, 0.0)
    assert (taken, pause_s) == ([], 1.0)


def test_what_was_not_moved_in_time_is_handed_out_again_and_what_was_is_not() -> None:
    store = stored(refs(1, 1), refs(1, 2))
    moves = drained(store, 1)
    first, _ = moves.take(MIB, 0.0)
    assert fids(first) == [1, 2]
    store.write({keys.reference_key(1, 1): None})
    moves.moved(refs(1, 1), refs(2, 11))
    assert moves.take(MIB, LEASE_S - 0.1)[0] == []
    assert fids(moves.take(MIB, LEASE_S + 0.1)[0]) == [2]


def test_what_comes_behind_the_place_and_before_it_is_found() -> None:
    moves = drained(store := stored(*[refs(1, fid) for fid in range(1, 2 * SCAN_MAX)]), 1)
    seen = [fid for _ in range(30) for fid in fids(moves.take(MIB, 0.0)[0])]
    delta = DeltaStore(store)
    late = refs(1, *range(10_000, 10_040))
    delta.put(keys.page_key(9_999, 0), encode(late))
    references.add(delta, 9_999, 0, late)
    store.write(delta.changes)
    found = [fid for _ in range(30) for fid in fids(moves.take(MIB, 0.0)[0])]
    assert sorted(found) == list(range(10_000, 10_040))
    assert not set(found) & set(seen)


def test_a_proxy_gets_what_it_has_room_for_and_at_least_one() -> None:
    moves = drained(stored(refs(1, 1, 2, 3, 4, length=100)), 1)
    assert len(moves.take(250, 0.0)[0]) == 2
    assert len(moves.take(1, 0.0)[0]) == 1


def test_the_rate_holds_over_any_while() -> None:
    rate = 10 * MIB
    moves = drained(stored(*[refs(1, fid, length=4 * MIB) for fid in range(1, 200)]), 1, rate=rate)
    now, moved = 0.0, 0
    while now < 20.0:
        taken, pause_s = moves.take(16 * MIB, now)
        moved += sum(move.fragment.length + UPKEEP_RECORD_BYTES for move in taken)
        now += max(pause_s, 0.001)
    assert 0.9 * rate * 20 <= moved <= rate * 20 + 17 * MIB


def test_of_a_deleted_object_nothing_is_moved() -> None:
    store = stored(refs(1, 1), refs(1, 2))
    store.write({keys.doomed_key(1): b""})
    assert fids(drained(store, 1).take(MIB, 0.0)[0]) == [2]


def test_a_shift_hands_out_its_bytes_and_at_most_a_fragment_more() -> None:
    moves = Moves(stored(refs(1, *range(1, 100), length=100)), FAST)
    moves.set_sources([(1, 2, 1_050)])
    taken, _ = moves.take(MIB, 0.0)
    taken += moves.take(MIB, 0.0)[0]
    assert len(taken) == 11
    assert {move.target for move in taken} == {2}
    assert moves.take(MIB, 1.0)[0] == []
    # Of those that were not moved in time, the bytes are free again.
    moves.moved([move.fragment for move in taken[:6]], refs(2, *range(901, 907)))
    moves.set_sources([(1, 2, 450)])
    again = [move for _ in range(3) for move in moves.take(MIB, LEASE_S + 2)[0]]
    assert len(again) == 5


def test_several_sources_share_and_none_is_left_out() -> None:
    store = stored(refs(1, *range(1, 300)), refs(2, *range(1_001, 1_300)))
    moves = drained(store, 1, 2)
    groups = [move.fragment.group for _ in range(4) for move in moves.take(2_000, 0.0)[0]]
    assert {1, 2} == set(groups)
    assert moves.is_any
    moves.set_sources([])
    assert not moves.is_any
    assert moves.take(MIB, 0.0)[0] == []
