"""Which files are compacted: the worst first, no more than one file's worth, small ones merged."""

from __future__ import annotations

from fabric.chunk.compaction_plan import SMALL_FILES_MAX, Candidate, choose

MIB = 2**20
FILE = 64 * MIB


def numbers(*candidates: Candidate, ratio: float = 0.3, room: int = 2**40) -> list[int]:
    chosen = choose(candidates, garbage_ratio=ratio, bytes_max=FILE, room_bytes=room)
    return [candidate.number for candidate in chosen]


def test_only_files_with_enough_garbage() -> None:
    assert numbers(Candidate(1, FILE, FILE * 8 // 10), Candidate(2, FILE, FILE * 6 // 10)) == [2]
    assert numbers(Candidate(1, FILE, FILE)) == []


def test_the_worst_first_as_long_as_they_fit_into_one_file() -> None:
    half, tenth = Candidate(1, FILE, FILE // 2), Candidate(2, FILE, FILE // 10)
    most = Candidate(3, FILE, FILE * 6 // 10)
    assert numbers(most, half, tenth) == [2, 1]


def test_an_empty_file_is_all_garbage_and_costs_nothing() -> None:
    assert numbers(Candidate(1, 0, 0), Candidate(2, FILE, 0), room=0) == [1, 2]


def test_without_room_nothing_that_must_be_copied() -> None:
    assert numbers(Candidate(1, FILE, FILE // 2), Candidate(2, FILE, FILE // 4), room=FILE // 3) == [2]
    assert numbers(Candidate(1, FILE, FILE // 2), room=-1) == []


def test_small_files_join_and_are_merged_when_there_are_many() -> None:
    small = [Candidate(number, MIB, MIB) for number in range(10, 10 + SMALL_FILES_MAX)]
    assert numbers(*small) == []
    assert numbers(*small, Candidate(1, FILE, FILE // 2)) == [1, *range(10, 10 + SMALL_FILES_MAX)]
    assert len(numbers(*small, Candidate(99, MIB, MIB))) == SMALL_FILES_MAX + 1


def test_all_garbage_means_all() -> None:
    assert numbers(Candidate(1, FILE, FILE - 8), Candidate(2, FILE, FILE), ratio=0.0) == [1]
