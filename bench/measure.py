"""The course of a benchmark: which measurement when.

Figure and limits take turns: each run of a figure has the limits of its case measured right before or
after it, so that a disturbance of the machine strikes both, and a ratio stays worth something.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from bench import http
from bench.clients import Clients
from bench.cluster import Cluster, running_fabric
from bench.disk_limit import append_durably
from bench.http_limit import BareHttp
from bench.objects import Job
from bench.plan import Case, Effort
from bench.processes import Memory, Meter
from bench.results import DiskBasics, Figure, RoleMemory, Run, figure_of, run_of
from bench.stats import Sample, percentile
from bench.wire_limit import WireLimit
from fabric.settings import KIB, MIB

WARM_UP_S = 0.2

Measurement = Callable[[], Sample]


class Options(NamedTuple):
    """What the command line chose."""

    cases: list[Case]
    effort: Effort
    work: Path
    replicas: int
    groups: int
    clients: int
    config: Path | None


class Watcher(Protocol):
    """Is told how far it has come."""

    def step(self, text: str) -> None:
        """One measurement begins."""
        ...

    def finished(self, figure: Figure) -> None:
        """All runs of a case are done."""
        ...


class Outcome(NamedTuple):
    """What was measured."""

    disk: DiskBasics
    figures: list[Figure]
    memory: list[RoleMemory]
    restarted: list[str]


def steps(options: Options) -> int:
    """How many times ``Watcher.step`` will be called."""
    limits = sum(1 + (case.writes) + 1 for case in options.cases)
    return 2 + limits * options.effort.runs


def measure(options: Options, watcher: Watcher) -> Outcome:
    """Do it all.  Raises BenchError, or OSError when the disk is full."""
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=options.work) as temporary:
        scratch = Path(temporary)
        watcher.step("disk alone")
        disk = disk_basics(scratch, options)
        watcher.step("starting a fabric")
        with Bench(options, scratch, watcher) as bench:
            figures = [bench.figure(case) for case in options.cases]
            return Outcome(disk, figures, bench.memory(), bench.cluster.restarted())


def disk_basics(directory: Path, options: Options) -> DiskBasics:
    """The disk without a fabric."""
    seconds = options.effort.limit_seconds
    single = append_durably(directory, 1 * KIB, 1, seconds, copies=1)
    return DiskBasics(
        fdatasync_per_s=round(single.rate_per_s, 1),
        fdatasync_p99_ms=round(percentile(single.latencies_s, 0.99) * 1000, 3),
        one_copy_megabytes_per_s=round(append_durably(directory, 4 * MIB, 1, seconds, 1).megabytes_per_s, 1),
        three_copies_megabytes_per_s=round(
            append_durably(directory, 4 * MIB, 1, seconds, 3).megabytes_per_s, 1
        ),
    )


class Bench:
    """A fabric, its clients and the peers of its limits, while they run."""

    def __init__(self, options: Options, scratch: Path, watcher: Watcher) -> None:
        self._options = options
        self._effort = options.effort
        self._scratch = scratch
        self._watcher = watcher
        self._stack = contextlib.ExitStack()
        self._filled: set[tuple[str, int]] = set()
        self._blobs: dict[int, http.Blob] = {}

    def __enter__(self) -> Bench:
        options = self._options
        with contextlib.ExitStack() as stack:
            self._wire = stack.enter_context(WireLimit())
            self._bare_http = stack.enter_context(BareHttp())
            self.cluster: Cluster = stack.enter_context(
                running_fabric(self._scratch / "data", options.replicas, options.groups, options.config)
            )
            self._clients = stack.enter_context(Clients(self.cluster.proxy, options.clients))
            self._memory_before = self.cluster.memory()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def figure(self, case: Case) -> Figure:
        """All runs of a case and of its limits, in turns."""
        once = self._store_figure(case) if case.front == "store" else self._http_figure(case)
        limits = dict(self._limits(case))
        runs: list[Run] = []
        limit_runs: dict[str, list[Run]] = {name: [] for name in limits}
        for index in range(self._effort.runs):
            # A disk that slows down when it is written to for long must not always favour the first.
            limits_first = index % 2 == 0
            if limits_first:
                self._run_limits(case, limits, limit_runs)
            runs.append(self._run_figure(case, once, index))
            if not limits_first:
                self._run_limits(case, limits, limit_runs)
        if case.front == "http":
            http.verify(self.cluster.registry, self._blob(case.object_bytes), self._scratch)
        figure = figure_of(case, runs, limit_runs)
        self._watcher.finished(figure)
        return figure

    def memory(self) -> list[RoleMemory]:
        """Of each role since its start."""
        nothing = Memory(0, 0)
        return [
            RoleMemory(name, self._memory_before.get(name, nothing).now_bytes, use.peak_bytes, use.now_bytes)
            for name, use in self.cluster.memory().items()
        ]

    def _run_figure(self, case: Case, once: Callable[[int], Sample], index: int) -> Run:
        self._watcher.step(case.name)
        meter = Meter(self.cluster.pids(), self._clients.pids)
        sample = once(index)
        return run_of(sample, meter.read())

    def _run_limits(self, case: Case, limits: dict[str, Measurement], runs: dict[str, list[Run]]) -> None:
        for name, limit in limits.items():
            self._watcher.step(f"{case.name}: {name} limit")
            runs[name].append(run_of(limit()))

    # --- figures ----------------------------------------------------------------------------------

    def _store_figure(self, case: Case) -> Callable[[int], Sample]:
        effort = self._effort
        job = Job(
            case.operation,
            case.object_bytes,
            case.concurrency,
            effort.seconds,
            effort.bytes_max,
            names=max(1, min(effort.names, effort.bytes_max // 8 // case.object_bytes)),
            label=f"{case.name}-warm-up",
        )
        fill = (case.operation.replace("get", "fill"), case.object_bytes)
        if not case.writes and fill not in self._filled:
            self._clients.run(job._replace(operation=fill[0]))
            self._filled.add(fill)
        self._clients.run(job._replace(seconds=min(WARM_UP_S, effort.seconds)))
        return lambda index: self._clients.run(job._replace(label=f"{case.name}-{index}"))

    def _http_figure(self, case: Case) -> Callable[[int], Sample]:
        blob = self._blob(case.object_bytes)
        registry = self.cluster.registry
        if case.operation == "pull" and not blob.digest:
            http.push(registry, blob, patch=False)
        operation = http.OPERATIONS[case.operation]

        def once(_: int) -> Sample:
            return operation(registry, blob)

        return once

    # --- limits -----------------------------------------------------------------------------------

    def _limits(self, case: Case) -> Iterator[tuple[str, Measurement]]:
        size, concurrency, seconds = case.object_bytes, case.concurrency, self._effort.limit_seconds
        if case.writes:
            copies = self._options.replicas
            yield "disk", partial(append_durably, self._scratch, size, concurrency, seconds, copies)
        if case.front == "store":
            yield "wire", partial(self._wire.measure, case.writes, size, concurrency, seconds)
        else:
            bare = http.bare_push if case.writes else http.bare_pull
            yield "http", partial(bare, self._bare_http.url, self._blob(size))

    def _blob(self, size: int) -> http.Blob:
        if size not in self._blobs:
            self._blobs[size] = http.Blob(self._scratch / f"blob-{size}", size)
        return self._blobs[size]
