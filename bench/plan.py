"""What is measured: the cases, their order, their targets.  Pure.

Big objects come last, so that the memory of the roles is read after the heaviest load.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import NamedTuple

from fabric.settings import GIB, KIB, MIB


class Target(NamedTuple):
    """What a figure must reach: ``at_least`` of ``unit``."""

    at_least: float
    unit: str
    """``objects/s``, ``MB/s`` or ``of disk`` (of the disk's rate for all copies, in the same run)."""

    def __str__(self) -> str:
        return f"≥ {self.at_least:g} {self.unit}"


class Case(NamedTuple):
    """One figure to measure."""

    front: str
    """``store``: through the proxy, as a Python client.  ``http``: through the registry, by curl."""
    operation: str
    """``put``, ``get`` (of objects marked immutable, as blobs and manifests are: the proxy may remember
    where they lie, never their bytes), ``get-mutable`` (as tags are: the master is asked each time); over
    HTTP ``push-patch``, ``push-put``, ``pull``."""
    object_bytes: int
    concurrency: int
    target: Target | None = None

    @property
    def name(self) -> str:
        """Unique, such as ``put-1KiB-c16`` or ``http-pull-256MiB``."""
        if self.front == "http":
            return f"http-{self.operation}-{size_name(self.object_bytes)}"
        return f"{self.operation}-{size_name(self.object_bytes)}-c{self.concurrency}"

    @property
    def writes(self) -> bool:
        """Does it store bytes?"""
        return self.operation not in ("get", "get-mutable", "pull")


class Effort(NamedTuple):
    """How long and how often to measure."""

    runs: int
    seconds: float
    """Per run; one operation at least is always finished."""
    limit_seconds: float
    bytes_max: int
    """A run ends when it has moved so many bytes."""
    names: int
    """Objects of one size that reads are spread over, as long as they fit ``bytes_max``."""


USUAL = Effort(runs=3, seconds=2.0, limit_seconds=1.0, bytes_max=1 * GIB, names=512)
QUICK = Effort(runs=1, seconds=0.15, limit_seconds=0.05, bytes_max=16 * MIB, names=8)

TARGETS = {
    "put-1KiB-c16": Target(1500, "objects/s"),
    "get-1KiB-c16": Target(4000, "objects/s"),
    "http-push-patch-256MiB": Target(0.7, "of disk"),
    "http-push-put-256MiB": Target(0.7, "of disk"),
    "http-pull-256MiB": Target(300, "MB/s"),
}


def cases(*, quick: bool = False) -> list[Case]:
    """Everything that is measured, in order.  ``quick``: a smoke test with small objects."""
    mutable = Case("store", "get-mutable", 1 * KIB, 16)
    small = [(1 * KIB, (1, 16))] if quick else [(1 * KIB, (1, 4, 16, 64)), (64 * KIB, (1, 4, 16, 64))]
    middle = [(4 * MIB, (1,) if quick else (1, 4))]
    large = 12 * MIB if quick else 256 * MIB
    planned = [mutable] + [
        Case("store", operation, size, concurrency)
        for size, levels in [*small, *middle, (large, (1,))]
        for concurrency in levels
        for operation in ("put", "get")
    ]
    planned += [Case("http", operation, large, 1) for operation in ("push-patch", "push-put", "pull")]
    return [case._replace(target=TARGETS.get(case.name)) for case in planned]


def select(planned: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """The cases whose name contains, or as a glob matches, one of the patterns; all without a pattern."""
    return [
        case
        for case in planned
        if not patterns
        or any(pattern in case.name or fnmatch.fnmatch(case.name, pattern) for pattern in patterns)
    ]


def size_name(size: int) -> str:
    """``1KiB``, ``4MiB``, … for whole powers, else bytes."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}B"


def attained(
    target: Target, rate_per_s: float, megabytes_per_s: float, disk_ratio: float | None
) -> bool | None:
    """Is the target met?  None when what it is held against was not measured."""
    value = {"objects/s": rate_per_s, "MB/s": megabytes_per_s, "of disk": disk_ratio}[target.unit]
    return None if value is None else value >= target.at_least
