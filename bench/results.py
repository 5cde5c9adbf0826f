"""The result file, typed: what one benchmark found out, on which machine, of which commit."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec

from bench.machine import Machine, Revision
from bench.plan import Case, Effort, attained
from bench.processes import Usage
from bench.stats import Sample, median, percentile, ratio, spread
from fabric.settings import Settings

FORMAT = 1

DEFINITIONS = {
    "figure": "operations that succeeded over elapsed time, in a closed loop of `concurrency` workers;"
    " medians over the runs; MB are millions of bytes of the object, counted once, not per copy",
    "disk": "appends of the same bytes to one preallocated file per copy, one thread each, all at once;"
    " `concurrency` objects, then one fdatasync; an object counts when all copies are durable;"
    " measured right before or after each run, so a ratio above 1 says how unsteady the disk is",
    "wire": "one ZeroMQ hop between two processes with the same frames and as many requests in flight;"
    " a put through the fabric takes 2 + copies hops, a get 2, and the catalog's besides",
    "http": "curl against a bare aiohttp handler that throws the body away, or sends zeros",
    "reads": "from the page cache: what was written lately; of objects marked immutable, as blobs and"
    " manifests are, so the proxy need not ask the master where they lie; `get-mutable` is asked each time",
    "cpu": "cores in use while the figure was measured; `others` is everything but roles and clients",
}


class Run(msgspec.Struct, frozen=True):
    """One measurement."""

    rate_per_s: float
    megabytes_per_s: float
    p50_ms: float
    p99_ms: float
    operations: int
    elapsed_s: float
    errors: dict[str, int] = {}
    cpu: Usage | None = None


class Figure(msgspec.Struct):
    """A case with its runs and, from the same minutes, the runs of its limits."""

    name: str
    front: str
    operation: str
    object_bytes: int
    concurrency: int
    runs: list[Run]
    limits: dict[str, list[Run]]
    rate_per_s: float = 0.0
    megabytes_per_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    spread: float = 0.0
    """(Fastest - slowest run) / median."""
    errors: int = 0
    ratios: dict[str, float | None] = {}
    """Limit -> rate over the limit's median rate."""
    target: str = ""
    attained: bool | None = None


class RoleMemory(msgspec.Struct, frozen=True):
    """Resident memory of a role, in bytes."""

    name: str
    at_start_bytes: int
    peak_bytes: int
    at_end_bytes: int


class DiskBasics(msgspec.Struct, frozen=True):
    """The disk alone, before the fabric was started."""

    fdatasync_per_s: float
    """Single 1 KiB appends to one file, each made durable before the next."""
    fdatasync_p99_ms: float
    one_copy_megabytes_per_s: float
    """4 MiB appends to one file, each made durable before the next."""
    three_copies_megabytes_per_s: float
    """The same to three files at once; MB of one copy."""


class Report(msgspec.Struct):
    """Everything."""

    format: int
    started_at: str
    elapsed_s: float
    quick: bool
    replicas: int
    groups: int
    clients: int
    effort: Effort
    machine: Machine
    revision: Revision
    settings: Settings
    disk: DiskBasics
    figures: list[Figure]
    memory: list[RoleMemory]
    restarted: list[str]
    definitions: dict[str, str]


def run_of(sample: Sample, cpu: Usage | None = None) -> Run:
    """The figures of a sample."""
    return Run(
        rate_per_s=round(sample.rate_per_s, 3),
        megabytes_per_s=round(sample.megabytes_per_s, 3),
        p50_ms=round(percentile(sample.latencies_s, 0.50) * 1000, 3),
        p99_ms=round(percentile(sample.latencies_s, 0.99) * 1000, 3),
        operations=len(sample.latencies_s),
        elapsed_s=round(sample.elapsed_s, 4),
        errors=dict(sample.errors),
        cpu=cpu,
    )


def figure_of(case: Case, runs: list[Run], limits: dict[str, list[Run]]) -> Figure:
    """Medians, ratios and the verdict on the target."""
    rate = median(run.rate_per_s for run in runs)
    megabytes = median(run.megabytes_per_s for run in runs)
    ratios = {
        name: ratio(rate, median(run.rate_per_s for run in measured)) for name, measured in limits.items()
    }
    return Figure(
        name=case.name,
        front=case.front,
        operation=case.operation,
        object_bytes=case.object_bytes,
        concurrency=case.concurrency,
        runs=runs,
        limits=limits,
        rate_per_s=rate,
        megabytes_per_s=megabytes,
        p50_ms=median(run.p50_ms for run in runs),
        p99_ms=median(run.p99_ms for run in runs),
        spread=round(spread([run.rate_per_s for run in runs]), 3),
        errors=sum(sum(run.errors.values()) for run in runs),
        ratios=ratios,
        target=str(case.target) if case.target else "",
        attained=attained(case.target, rate, megabytes, ratios.get("disk")) if case.target else None,
    )


def file_name(report: Report) -> str:
    """``DATE-COMMIT.json``, with the commit marked when files differ from it."""
    at = datetime.datetime.fromisoformat(report.started_at)
    commit = report.revision.commit[:10] or "no-commit"
    mark = "-changed" if report.revision.changed else ""
    return f"{at:%Y%m%dT%H%M%S}-{commit}{mark}.json"


def save(report: Report, path: Path) -> None:
    """Write the file, making its folder.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
