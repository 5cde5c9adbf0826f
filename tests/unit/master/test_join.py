"""Joining: the fragments of one object go to the end of another, and nothing but pages is written."""

from __future__ import annotations

import pytest

from fabric.master import keys, references
from fabric.settings import FRAGMENTS_PER_PAGE_MAX, JOINED_FRAGMENTS_MAX
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    DeleteOperation,
    Found,
    FragmentRef,
    Fragments,
    JoinOperation,
    ListFragments,
    Moved,
    PutOperation,
    Relocate,
    Relocated,
    Stat,
)
from tests.unit.master.bench import MasterBench, fragment, writable_bench


@pytest.fixture
def bench() -> MasterBench:
    bench, _ = writable_bench(replicas=1)
    bench.lease(100_000)
    return bench


def make(bench: MasterBench, path: str, first_fid: int, count: int) -> list[FragmentRef]:
    """An object of so many fragments of 100 bytes."""
    refs = [fragment(fid) for fid in range(first_fid, first_fid + count)]
    bench.commit(PutOperation(path, []))
    for start in range(0, count, FRAGMENTS_PER_PAGE_MAX):
        page = refs[start : start + FRAGMENTS_PER_PAGE_MAX]
        bench.commit(AppendOperation(path, page, start * 100))
    return refs


def walk(bench: MasterBench, path: str) -> list[FragmentRef]:
    object_id = bench.ask(Stat(1_000, path), Found).info.object_id
    found: list[FragmentRef] = []
    while True:
        page = bench.ask(ListFragments(1_000, object_id, sum(each.length for each in found)), Fragments)
        found += page.fragments
        if not page.more:
            return found


@pytest.mark.parametrize("have", [0, 1, 100, 128, 129])
@pytest.mark.parametrize("more", [1, 28, 128, 300])
def test_the_fragments_follow_in_order_with_their_references(
    bench: MasterBench, have: int, more: int
) -> None:
    refs = make(bench, "whole", 1, have) + make(bench, "part", 1_000, more)
    generation = bench.ask(Stat(1_000, "part"), Found).info.generation

    (info,) = bench.commit(JoinOperation("whole", "part", have * 100)).results

    assert info is not None and (info.size, info.generation) == (len(refs) * 100, generation + 1)
    assert bench.refused(Stat(1_000, "part")).code == "NOT_FOUND"
    bench.restart()
    assert walk(bench, "whole") == refs
    pages = bench.store.scan(keys.PAGES, keys.after_all(keys.PAGES), 10_000)
    assert {keys.page_of(key)[0] for key, _ in pages} == {info.object_id}
    for each in refs:
        reference = references.find(bench.store, each.group, each.fid)
        assert reference is not None and reference.object_id == info.object_id
        assert references.fragment(bench.store, each.group, reference) == each


def test_nothing_is_doomed_by_a_join_and_a_delete_afterwards_deletes_everything(bench: MasterBench) -> None:
    make(bench, "whole", 1, 3)
    make(bench, "part", 11, 4)
    bench.commit(JoinOperation("whole", "part", 300))
    bench.tick(bench.now + 60)
    assert bench.store.scan(keys.DELETES, keys.after_all(keys.DELETES), 100) == []

    bench.commit(DeleteOperation("whole"))
    bench.tick(bench.now + 60)

    pairs = bench.store.scan(keys.DELETES, keys.after_all(keys.DELETES), 100)
    assert [keys.last_number(key) for key, _ in pairs] == [1, 2, 3, 11, 12, 13, 14]


def test_a_fragment_that_is_on_its_way_to_another_place_is_found_where_it_was_joined_to(
    bench: MasterBench,
) -> None:
    refs = make(bench, "whole", 1, 2) + make(bench, "part", 11, 2)
    moved = Moved(refs[3], FragmentRef(1, 50, 100, refs[3].checksum))
    bench.commit(JoinOperation("whole", "part", 200))

    assert bench.ask(Relocate(1_000, [moved]), Relocated).named == [True]

    assert walk(bench, "whole") == [*refs[:3], moved.target]


def test_several_joins_in_one_commit_see_each_other(bench: MasterBench) -> None:
    refs = make(bench, "whole", 1, 127) + make(bench, "b", 200, 2) + make(bench, "c", 300, 130)

    bench.commit(JoinOperation("whole", "b", 12_700), JoinOperation("whole", "c", 12_900))

    assert walk(bench, "whole") == refs


def test_repeating_the_operation_changes_nothing(bench: MasterBench) -> None:
    refs = make(bench, "whole", 1, 1) + make(bench, "part", 2, 1)
    message = bench.commit_message(JoinOperation("whole", "part", 100))
    first = bench.tell(message)
    again = bench.tell(message)
    assert [effect.message for effect in first] == [effect.message for effect in again]  # type: ignore[attr-defined]
    assert walk(bench, "whole") == refs


def test_an_empty_source_only_goes(bench: MasterBench) -> None:
    refs = make(bench, "whole", 1, 1)
    make(bench, "part", 2, 0)
    bench.commit(JoinOperation("whole", "part", 100))
    assert walk(bench, "whole") == refs
    assert bench.refused(Stat(1_000, "part")).code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("operation", "code", "path"),
    [
        (JoinOperation("none", "part", 0), "NOT_FOUND", "none"),
        (JoinOperation("whole", "none", 100), "NOT_FOUND", "none"),
        (JoinOperation("whole", "part", 99), "PRECONDITION", "whole"),
        (JoinOperation("whole", "whole", 100), "BAD_REQUEST", "whole"),
        (JoinOperation("fixed", "part", 100), "BAD_REQUEST", "fixed"),
        (JoinOperation("whole", "fixed", 100), "BAD_REQUEST", "fixed"),
        (JoinOperation("a//b", "part", 0), "BAD_REQUEST", "a//b"),
        (JoinOperation("whole", "a//b", 100), "BAD_REQUEST", "a//b"),
    ],
)
def test_what_is_refused_changes_nothing(
    bench: MasterBench, operation: AnyOperation, code: str, path: str
) -> None:
    refs = make(bench, "whole", 1, 1)
    part = make(bench, "part", 2, 1)
    bench.commit(PutOperation("fixed", [fragment(3)], immutable=True))

    failed = bench.commit_refused(AppendOperation("part", [fragment(4)], 100), operation)

    assert (failed.code, path in failed.message) == (code, True), failed
    assert (walk(bench, "whole"), walk(bench, "part")) == (refs, part)


def test_one_commit_joins_a_bounded_number_of_fragments(bench: MasterBench) -> None:
    refs = make(bench, "whole", 1, 0)
    refs += make(bench, "a", 1, JOINED_FRAGMENTS_MAX - 1)
    refs += make(bench, "b", 5_001, 1)
    make(bench, "c", 5_002, 1)
    make(bench, "d", 10_000, JOINED_FRAGMENTS_MAX + 1)
    size = JOINED_FRAGMENTS_MAX * 100
    two = [JoinOperation("whole", "a", 0), JoinOperation("whole", "b", size - 100)]

    assert bench.commit_refused(*two, JoinOperation("whole", "c", size)).code == "BAD_REQUEST"
    assert bench.commit_refused(JoinOperation("whole", "d", 0)).code == "BAD_REQUEST"
    bench.commit(*two)

    assert walk(bench, "whole") == refs


def test_a_join_writes_no_more_for_a_large_object_than_for_a_small_one(bench: MasterBench) -> None:
    make(bench, "whole", 1, 0)
    sizes = []
    for number in range(100):
        make(bench, "part", 1 + number * 50, 50)
        bench.hold = True
        bench.tell(bench.commit_message(JoinOperation("whole", "part", number * 5_000)))
        changes = bench.held[0].job.changes  # type: ignore[attr-defined]
        sizes.append(sum(len(key) + len(value or b"") for key, value in changes.items()))
        bench.hold = False
        bench.write_held()

    assert max(sizes[50:]) <= max(sizes[:20]) * 1.2
