"""A tombstone stays while any file may hold what it deletes, and no longer."""

from __future__ import annotations

from fabric.chunk.copies import holding, is_needed, replacing, settled
from fabric.chunk.index import MANY, Entry
from fabric.chunk.record import TOMBSTONE


def live(file: int, offset: int = 4096, stale: int = 0, flags: int = 0) -> Entry:
    return Entry(file, offset, 100, 7, flags, stale)


def tombstone(file: int, offset: int = 8192, stale: int = 0, flags: int = 0) -> Entry:
    return Entry(file, offset, 100, 7, TOMBSTONE | flags, stale)


def test_a_tombstone_remembers_the_file_of_what_it_deletes() -> None:
    dead = replacing(tombstone(3), live(1))
    assert dead.stale == 1
    assert is_needed(dead, [1, 3]) and not is_needed(dead, [2, 3])


def test_a_tombstone_of_what_was_never_here_is_not_needed() -> None:
    assert not is_needed(replacing(tombstone(3), None), [1, 2, 3])


def test_a_repaired_fragment_that_is_deleted_has_two_copies() -> None:
    repaired = replacing(live(5), live(2))
    dead = replacing(tombstone(6), repaired)
    assert is_needed(dead, [2, 6]) and is_needed(dead, [5, 6]) and not is_needed(dead, [6, 7])


def test_two_copies_in_one_file_are_one_file() -> None:
    dead = replacing(tombstone(2), replacing(live(2, 8192), live(2)))
    assert (dead.stale, dead.flags & MANY) == (2, 0)


def test_a_tombstone_written_anew_needs_no_more_than_the_old_one() -> None:
    assert replacing(tombstone(9), tombstone(3, stale=1)).stale == 1


def test_a_copy_in_a_file_that_leaves_is_replaced_by_the_one_that_comes() -> None:
    dead = holding(tombstone(3, stale=1), 8, leaving=[1])
    assert (dead.stale, dead.flags & MANY) == (8, 0)
    both = holding(tombstone(3, stale=1), 8)
    assert is_needed(both, [1]) and is_needed(both, [8]) and not is_needed(both, [9])


def test_a_good_copy_found_last_counts_and_remembers_the_other() -> None:
    entry = settled(live(1), live(4), good=True, old_is_good=True)
    assert (entry.file, entry.stale) == (4, 1)


def test_a_damaged_copy_never_replaces_a_good_one() -> None:
    entry = settled(live(1), live(4), good=False, old_is_good=True)
    assert (entry.file, entry.stale) == (1, 4)
    assert settled(live(1), live(4), good=False, old_is_good=False).file == 4


def test_a_tombstone_holds_in_whatever_order_records_are_found() -> None:
    first = settled(live(1), tombstone(2), good=True, old_is_good=True)
    second = settled(tombstone(2), live(1), good=True, old_is_good=True)
    assert first == second == tombstone(2, stale=1)


def test_finding_a_known_record_again_changes_nothing() -> None:
    known = live(1, stale=3, flags=MANY)
    assert settled(known, live(1), good=True, old_is_good=True) is known
    dead = tombstone(5, stale=1)
    assert settled(dead, live(1), good=True, old_is_good=True) is dead


def test_other_bytes_under_the_fid_do_not_replace_what_is_there() -> None:
    other = Entry(4, 4096, 100, 8)
    assert settled(live(1), other, good=True, old_is_good=True).file == 1
