"""From samples to figures."""

from __future__ import annotations

from pathlib import Path

from bench.machine import file_system
from bench.plan import Case, Target
from bench.results import figure_of, run_of
from bench.stats import Sample

CASE = Case("store", "put", 1024, 16, Target(1500, "objects/s"))
MOUNTS = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/sdb /mnt/my\\040disk xfs rw 0 0\n"


def sample(count: int, **errors: int) -> Sample:
    return Sample([0.001] * count, 1024 * count, 1.0, errors)


def test_a_figure_is_the_median_of_its_runs_beside_the_median_of_its_limits() -> None:
    figure = figure_of(
        CASE,
        [run_of(sample(count)) for count in (2000, 1000, 1600)],
        {"disk": [run_of(sample(count)) for count in (3000, 9000, 3200)]},
    )

    assert figure.name == "put-1KiB-c16"
    assert figure.rate_per_s == 1600
    assert figure.ratios == {"disk": 0.5}
    assert figure.spread == 0.625
    assert (figure.target, figure.attained) == ("≥ 1500 objects/s", True)


def test_errors_are_counted_over_all_runs() -> None:
    figure = figure_of(CASE, [run_of(sample(10, BUSY=2)), run_of(sample(10, BUSY=1, DEADLINE=4))], {})

    assert figure.errors == 7
    assert figure.attained is False


def test_a_run_without_one_success_is_a_rate_of_zero() -> None:
    run = run_of(Sample([], 0, 2.0, {"UNAVAILABLE": 3}))

    assert (run.rate_per_s, run.p99_ms, run.operations) == (0.0, 0.0, 0)


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    assert file_system(Path("/home/me"), MOUNTS) == "ext4 on /dev/vda"
    assert file_system(Path("/tmp/x"), MOUNTS) == "tmpfs on tmpfs"
    assert file_system(Path("/tmpx"), MOUNTS) == "ext4 on /dev/vda"
    assert file_system(Path("/mnt/my disk/data"), MOUNTS) == "xfs on /dev/sdb"
