"""The rows: every question, its target, what it needs.  How each is measured is told in the files beside."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from bench.peers import growth, images, large, registry, small, speedy
from bench.peers.figures import Target
from bench.peers.sides import Sides
from bench.peers.stage import DEBIAN, FABRIC, FABRIC_OF_ONE, HOPS, SEAWEED, WIRE, Effort, Stage
from fabric.settings import KIB, MIB

FULL = Effort(
    runs=3,
    seconds=2.0,
    small_writes=2_500,
    small_reads=16_000,
    large_bytes=256 * MIB,
    many_fragments=10_000_000,
    image_layers_bytes=(*(size * MIB for size in (48, 24, 16, 12, 8, 6, 4, 2, 1)), 32 * KIB),
)
QUICK = FULL._replace(runs=1, seconds=1.0, small_writes=800, small_reads=6_000, many_fragments=1_000_000)


class Row(NamedTuple):
    """One question."""

    name: str
    question: str
    targets: tuple[Target, ...]
    needs: frozenset[str]
    """Servers that must not be ended before it."""
    prepare: Callable[[Stage], Sides]
    """Starts and fills what is measured; returns its sides, the fabric first."""


def rows() -> list[Row]:
    """All of them, in the order in which they are measured."""
    return [*_beside_seaweed(), *_speedy(), *_beside_registry(), *_alone()]


def _row(
    name: str,
    question: str,
    targets: Sequence[Target],
    needs: Sequence[str],
    prepare: Callable[[Stage], Sides],
) -> Row:
    return Row(name, question, tuple(targets), frozenset(needs), prepare)


def _beside_seaweed() -> list[Row]:
    both = (FABRIC, SEAWEED)
    rate = "objects_per_s"
    found = []
    for clients in (16, 64):
        found.append(
            _row(
                f"put-1KiB-c{clients}",
                f"puts of 1 KiB, durable on 3 replicas, {clients} clients, against weed benchmark with 002",
                [Target(rate, 4.0)],
                [*both, HOPS],
                partial(small.puts, clients=clients),
            )
        )
    for clients in (16, 64):
        found.append(
            _row(
                f"get-1KiB-c{clients}",
                f"random gets of 1 KiB, {clients} clients, against weed benchmark",
                [Target(rate, 2.0)],
                both,
                partial(small.gets, clients=clients),
            )
        )
    found.append(
        _row(
            "put-256MiB",
            "put of 256 MiB, durable on 3 replicas, against SeaweedFS's filer with 002",
            [Target("megabytes_per_s", 3.0)],
            both,
            large.put_beside_filer,
        )
    )
    found.append(
        _row(
            "get-256MiB",
            "get of 256 MiB, against SeaweedFS's filer",
            [Target("megabytes_per_s", 2.0)],
            both,
            large.get_beside_filer,
        )
    )
    return found


def _speedy() -> list[Row]:
    """Speedy published up- and downloads of files of 16 MB, 10, 50 and 100 at once, with three replicas."""
    found = []
    for at_once in (10, 50, 100):
        found.append(
            _row(
                f"speedy-put-c{at_once}",
                f"Speedy's test: upload of 16 MiB files, {at_once} at once, 3 replicas, against the disk",
                [Target("megabytes_per_s")],
                [FABRIC],
                partial(speedy.puts, at_once=at_once),
            )
        )
        found.append(
            _row(
                f"speedy-get-c{at_once}",
                f"Speedy's test: download of 16 MiB files, {at_once} at once, against one ZeroMQ hop",
                [Target("megabytes_per_s")],
                [FABRIC, WIRE],
                partial(speedy.gets, at_once=at_once),
            )
        )
    return found


def _beside_registry() -> list[Row]:
    rate = Target("megabytes_per_s", 1.0)
    both = (FABRIC, DEBIAN)
    found = [
        _row(
            "push-http",
            "push of 256 MiB by HTTP, durable on 3 replicas, against the disk alone, 3 files",
            [Target("megabytes_per_s", 0.9)],
            [FABRIC],
            large.push_beside_disk,
        ),
        _row(
            "push-http-1-replica",
            "push of 256 MiB by HTTP with --replicas 1, against docker-registry",
            [rate],
            [FABRIC_OF_ONE, DEBIAN],
            large.push_beside_registry,
        ),
    ]
    for at_once in (1, 4, 16):
        found.append(
            _row(
                f"pull-256MiB-c{at_once}",
                f"pull of a 256 MiB blob by HTTP, 3 replicas, {at_once} at once, against docker-registry",
                [rate],
                both,
                partial(large.pull_beside_registry, at_once=at_once),
            )
        )
    found.append(
        _row(
            "skopeo",
            "push and pull of an image of 10 layers by skopeo, against docker-registry",
            [Target("push_megabytes_per_s", 1.0), Target("pull_megabytes_per_s", 1.0)],
            both,
            images.push_and_pull,
        )
    )
    for name, question in (
        ("manifest-by-tag", "GET of a manifest by tag"),
        ("blob-head", "HEAD of a blob"),
    ):
        found.append(
            _row(
                name,
                f"{question}, 32 connections, two registry processes, against docker-registry",
                [Target("requests_per_s", 1.0), Target("p99_ms", 1.0, at_least=False)],
                both,
                partial(registry.requests, kind=name),
            )
        )
    return found


def _alone() -> list[Row]:
    return [
        _row(
            "get-beside-puts",
            "p99 of gets of 1 KiB, 4 clients, while 2 clients put 4 MiB, against idle",
            [Target("p99_ms", 3.0, at_least=False)],
            [FABRIC],
            small.gets_beside_puts,
        ),
        _row(
            "growth",
            "cost of a put and of a first get, 16 clients, with 10 million fragments, against 10 thousand",
            _growth("put", "get", 1.2),
            [],
            growth.operations,
        ),
        _row(
            "growth-index",
            "a chunk server's step alone: a put and a get with 10 million fragments, against 10 thousand",
            _growth("put", "get"),
            [],
            growth.index,
        ),
        _row(
            "growth-catalog",
            "the master's step alone: a commit and a look-up with 10 million objects, against 10 thousand",
            _growth("commit", "lookup"),
            [],
            growth.catalog,
        ),
    ]


def _growth(write: str, read: str, at_most: float | None = None) -> list[Target]:
    """Time and processor time of either."""
    names = (f"{write}_us", f"{write}_cpu_us", f"{read}_us", f"{read}_cpu_us")
    return [Target(name, at_most, at_least=False) for name in names]


def select(planned: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows whose name contains, or as a glob matches, one of the patterns; all without a pattern."""
    return [
        row
        for row in planned
        if not patterns
        or any(pattern in row.name or fnmatch.fnmatch(row.name, pattern) for pattern in patterns)
    ]
