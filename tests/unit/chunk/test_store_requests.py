"""Several fragments in one request: each is stored or refused by itself, and one answer tells all."""

from __future__ import annotations

import pytest

from fabric.chunk.jobs import BATCH_ITEMS_MAX
from fabric.node.shared_memory import SharedBytes
from fabric.settings import Settings
from fabric.wire.messages import (
    AbortFragment,
    Failed,
    FragmentAborted,
    FragmentRef,
    FragmentsStored,
    FragmentStored,
    StoreFragment,
    StoreFragments,
)
from tests.unit.chunk.engine_bench import checksum_of, payload_of
from tests.unit.chunk.role_world import GROUP, World

FIDS = [5, 6, 7]


def ref(fid: int, size: int = 100) -> FragmentRef:
    return FragmentRef(GROUP, fid, size, checksum_of(payload_of(fid, size)))


def request(*refs: FragmentRef, epoch: int = 1, deadline_ms: int = 3000) -> StoreFragments:
    return StoreFragments(deadline_ms, GROUP, epoch, list(refs))


def payload(*refs: FragmentRef) -> bytes:
    return b"".join(payload_of(ref.fid, ref.length) for ref in refs)


def writable(**options: object) -> World:
    world = World(**options)  # type: ignore[arg-type]
    world.run_reads()
    world.assign("RW", 1)
    return world


def store(world: World, *refs: FragmentRef) -> FragmentsStored | Failed:
    answer = world.answer(request(*refs), payload(*refs))
    assert isinstance(answer, FragmentsStored | Failed)
    return answer


def test_all_are_stored_each_with_its_own_bytes() -> None:
    world = writable()
    refs = [ref(5, 1), ref(6, 100), ref(7, 4000)]
    assert store(world, *refs) == FragmentsStored(GROUP, 1, refs, [])
    bench = world.servers["a"].bench
    assert bench.live().keys() == {5, 6, 7}
    for each in refs:
        assert bench.read(each.fid, 0, each.length).payload == payload_of(each.fid, each.length)


def test_they_share_one_sync_and_the_answer_waits_for_it() -> None:
    world = writable(automatic=False)
    refs = [ref(fid) for fid in FIDS]
    asked = world.ask(request(*refs), payload(*refs))
    assert asked not in world.replies
    assert len(world.servers["a"].lanes["write"]) == 1
    world.run_job()
    assert world.replies[asked][0] == FragmentsStored(GROUP, 1, refs, [])


def test_one_with_other_bytes_is_refused_and_the_others_are_stored() -> None:
    world = writable()
    good = [ref(5), ref(7)]
    bad = FragmentRef(GROUP, 6, 100, 1)
    answer = world.answer(request(good[0], bad, good[1]), payload(good[0], ref(6), good[1]))
    assert isinstance(answer, FragmentsStored)
    assert answer.stored == good
    assert [(each.fid, each.code) for each in answer.refused] == [(6, "BAD_CHECKSUM")]
    assert world.servers["a"].bench.live().keys() == {5, 7}


def test_a_fid_that_was_aborted_or_is_taken_is_refused_alone() -> None:
    world = writable()
    store(world, ref(5))
    answer = store(world, ref(5, 50), ref(6))
    assert isinstance(answer, FragmentsStored)
    assert answer.stored == [ref(6)]
    assert [(each.fid, each.code) for each in answer.refused] == [(5, "CONFLICT")]


def test_each_in_a_batch_of_all_kinds_gets_its_own_answer() -> None:
    world = writable(automatic=False)
    world.ask(request(ref(99)), payload(ref(99)))  # the lane is at it while the others gather
    bad = world.ask(StoreFragment(3000, GROUP, 1, 1, 7), payload_of(1, 10))
    together = world.ask(
        request(ref(2), FragmentRef(GROUP, 3, 100, 1), ref(4)), payload(ref(2), ref(3), ref(4))
    )
    aborted = world.ask(AbortFragment(3000, GROUP, 5))
    good = world.ask(StoreFragment(3000, GROUP, 1, 6, checksum_of(payload_of(6, 10))), payload_of(6, 10))
    while world.run_job():
        pass
    assert world.outcome(bad) == "BAD_CHECKSUM"
    answer = world.replies[together][0]
    assert isinstance(answer, FragmentsStored)
    assert (answer.stored, [each.fid for each in answer.refused]) == ([ref(2), ref(4)], [3])
    assert world.replies[aborted][0] == FragmentAborted(5)
    assert isinstance(world.replies[good][0], FragmentStored)
    assert world.servers["a"].bench.live().keys() == {99, 2, 4, 6}


def test_the_same_request_again_gets_the_same_answer() -> None:
    world = writable()
    refs = [ref(fid) for fid in FIDS]
    assert store(world, *refs) == store(world, *refs) == FragmentsStored(GROUP, 1, refs, [])


def test_a_request_that_fills_more_than_a_batch_is_answered_once() -> None:
    world = writable(automatic=False)
    rounds = [[ref(128 * n + k + 1, 8) for k in range(128)] for n in range(BATCH_ITEMS_MAX // 128 + 1)]
    first = world.ask(request(ref(9999)), payload(ref(9999)))
    asked = [world.ask(request(*refs), payload(*refs)) for refs in rounds]
    while world.run_job():
        pass
    assert world.replies[first][0] == FragmentsStored(GROUP, 1, [ref(9999)], [])
    for request_id, refs in zip(asked, rounds, strict=True):
        assert world.replies[request_id][0] == FragmentsStored(GROUP, 1, refs, [])


def test_an_older_epoch_is_refused_as_a_whole_also_when_it_became_old_while_it_was_written() -> None:
    world = writable(automatic=False)
    late = world.ask(request(ref(5), ref(6)), payload(ref(5), ref(6)))
    world.assign("RW", 2)
    while world.run_job():
        pass
    assert world.outcome(late) == "STALE_EPOCH"
    assert world.outcome(world.ask(request(ref(8), epoch=1), payload(ref(8)))) == "STALE_EPOCH"


def test_those_whose_deadline_has_passed_are_not_written() -> None:
    world = writable(automatic=False)
    world.ask(request(ref(1)), payload(ref(1)))
    late = world.ask(request(ref(5), ref(6), deadline_ms=500), payload(ref(5), ref(6)))
    world.now += 1.0
    world.run_job()
    assert world.outcome(late) == "DEADLINE"
    assert world.servers["a"].bench.live().keys() == {1}


def test_their_bytes_count_and_more_than_fits_is_refused() -> None:
    world = writable(automatic=False, settings=Settings(reserve_bytes=0, chunk_inflight_bytes_max=10_000))
    fits = world.ask(request(ref(5, 4000), ref(6, 4000)), payload(ref(5, 4000), ref(6, 4000)))
    more = world.ask(request(ref(7, 1000), ref(8, 1000)), payload(ref(7, 1000), ref(8, 1000)))
    assert (world.outcome(fits), world.outcome(more)) == ("", "BUSY")


@pytest.mark.parametrize(
    ("refs", "data"),
    [
        ([], b""),
        ([ref(5)], payload(ref(5)) + b"!"),
        ([ref(5), ref(6)], payload(ref(5))),
        ([ref(5), FragmentRef(GROUP, 6, 0, 0)], payload(ref(5))),
        ([ref(5), FragmentRef(GROUP + 1, 6, 100, 0)], payload(ref(5), ref(6))),
        ([ref(5)], SharedBytes("/proc/1/fd/1", 100)),
    ],
    ids=["none", "bytes too many", "bytes too few", "an empty one", "another group", "bytes elsewhere"],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_stored(refs: list[FragmentRef], data: object) -> None:
    world = writable()
    assert world.outcome(world.ask(request(*refs), data)) == "BAD_REQUEST"
    assert world.servers["a"].bench.live() == {}
