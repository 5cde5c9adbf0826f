"""What the benchmark measures, and when a target counts as met."""

from __future__ import annotations

import pytest

from bench.plan import TARGETS, Case, Target, attained, cases, select, size_name


def names(only: list[str]) -> list[str]:
    return [case.name for case in select(cases(), only)]


def test_every_target_belongs_to_a_case_and_names_are_unique() -> None:
    planned = cases()

    assert {case.name: case.target for case in planned if case.target} == TARGETS
    assert len({case.name for case in planned}) == len(planned)


def test_the_biggest_objects_come_last() -> None:
    sizes = [case.object_bytes for case in cases()]

    assert sizes == sorted(sizes)


def test_a_pattern_is_a_part_of_a_name_or_a_glob() -> None:
    assert names(["-256MiB-c1"]) == ["put-256MiB-c1", "get-256MiB-c1"]
    assert names(["put-?KiB-c16", "pull"]) == ["put-1KiB-c16", "http-pull-256MiB"]
    assert names([]) == [case.name for case in cases()]
    assert names(["nothing of the kind"]) == []


def test_quick_is_small() -> None:
    assert max(case.object_bytes for case in cases(quick=True)) < 16 * 2**20
    assert {case.operation for case in cases(quick=True)} == {case.operation for case in cases()}


@pytest.mark.parametrize(
    ("size", "name"), [(1024, "1KiB"), (1000, "1000B"), (3 * 2**20, "3MiB"), (2**30, "1GiB"), (0, "0B")]
)
def test_sizes_are_named_by_whole_units(size: int, name: str) -> None:
    assert size_name(size) == name


def test_only_puts_and_pushes_write() -> None:
    writing = {case.operation for case in cases() if case.writes}

    assert writing == {"put", "push-patch", "push-put"}
    assert Case("http", "push-put", 1024, 1).name == "http-push-put-1KiB"


@pytest.mark.parametrize(
    ("target", "disk_ratio", "met"),
    [
        (Target(100, "objects/s"), None, True),
        (Target(101, "objects/s"), None, False),
        (Target(9, "MB/s"), None, False),
        (Target(0.7, "of disk"), 0.7, True),
        (Target(0.7, "of disk"), 0.69, False),
        (Target(0.7, "of disk"), None, None),
    ],
)
def test_a_target_is_met_at_its_very_value(
    target: Target, disk_ratio: float | None, met: bool | None
) -> None:
    assert attained(target, 100.0, 8.0, disk_ratio) is met
