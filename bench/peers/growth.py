"""What a put and a get cost when very much is stored, against the same when little is.

``operations`` asks a client of two fabrics, one with much in it and one with little.  It reads objects
that nobody has read before, each once: what the proxy remembers would hide the difference.

What depends on how much there is are two look-ups: a chunk server's index, and the master's catalog.
``index`` and ``catalog`` measure each alone, through the code of its role, in this process, on the real disk.

Times are those of a client that waits (``…_us``, fdatasync included) and of the processor
(``…_cpu_us``, all threads, LevelDB's compaction included).  Everything is in the page cache: what is
measured is the cost of size, not of a slow disk.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter

from bench.clients import Clients
from bench.cluster import Cluster, running_fabric
from bench.engine.store import GROUP, Payloads, open_engine, read, write
from bench.errors import BenchError
from bench.objects import Job
from bench.peers.sides import Measure, Sides, Values
from bench.peers.stage import Stage
from bench.peers.stores import DIGEST, PAYLOAD, fill_catalog, fill_fabric, fill_fragments, path_of
from bench.processes import exact_cpu_seconds, machine_cpu_seconds
from bench.stats import percentile
from fabric.chunk.engine import Engine
from fabric.master.catalog import Catalog
from fabric.master.delta import DeltaStore
from fabric.master.fids import FidLeases
from fabric.master.operation_ids import OperationIds
from fabric.master.store import Store
from fabric.wire.messages import Commit, FragmentRef, PutOperation

FEW = 10_000
CLIENTS = 16
PUTS = 4_000
"""Of a run of whole operations."""
ENDLESS_S = 60.0
READY_S = 900.0
"""A master reads all it has when it starts."""
GETS = 20_000
READ_BYTES = 1024 * 1024
PUT_BATCHES, PUT_BATCH = 64, 64
"""Puts share an fdatasync, as those of many clients do."""
COMMIT_BATCHES, COMMIT_BATCH = 64, 16
QUIET_S, QUIET_TIMES, PATIENCE_S = 0.25, 6, 120.0
IDLE_CORES, IDLE_FABRICS_CORES = 0.02, 0.3
"""Less is quiet: of this process, and of a machine with two fabrics that have nothing to do."""


def operations(stage: Stage) -> Sides:
    """Two fabrics, one with many objects and one with few."""
    many = stage.effort.many_fragments
    # Also where there are few, each is read once in all runs, one of which warms up.
    gets = FEW // (stage.effort.runs + 1) - CLIENTS
    directory = stage.scratch("growth")
    config = directory / "fabric.toml"
    # It would read the many all the time, and the few in a moment.
    config.write_text("[settings]\nscrub_bytes_per_s = 1\n")
    measures: dict[str, Measure] = {}
    with ExitStack() as stack:
        for count in (many, FEW):
            data = directory / str(count)
            with running_fabric(data, replicas=3, groups=1):
                pass  # its servers have names and a group now
            fill_fabric(data, count)
            cluster = stack.enter_context(running_fabric(data, 3, 1, config, ready_s=READY_S))
            clients = stack.enter_context(Clients(cluster.proxy, 1))
            measures[f"{count:,} objects"] = _Operations(cluster, clients, count, gets).run
        _wait_until_quiet(machine_cpu_seconds, IDLE_FABRICS_CORES)
        _read_all(directory)
        _warm_up(measures)
        return Sides(measures, stack.pop_all().close)


def index(stage: Stage) -> Sides:
    """Two engines, one with many fragments and one with few."""
    many = stage.effort.many_fragments
    directory = stage.scratch("growth-index")
    measures: dict[str, Measure] = {}
    with ExitStack() as stack:
        for count in (many, FEW):
            home = directory / str(count)
            fill_fragments(home, range(count))
            engine = stack.enter_context(open_engine(home))
            measures[f"{count:,} fragments"] = _Fragments(engine, count).run
        _wait_until_quiet(time.process_time, IDLE_CORES)
        _warm_up(measures)
        return Sides(measures, stack.pop_all().close)


def catalog(stage: Stage) -> Sides:
    """Two catalogs, one with many objects and one with few."""
    many = stage.effort.many_fragments
    directory = stage.scratch("growth-catalog")
    measures: dict[str, Measure] = {}
    with ExitStack() as stack:
        for count in (many, FEW):
            store = fill_catalog(directory / str(count), count)
            stack.callback(store.close)
            measures[f"{count:,} objects"] = _Objects(store, count).run
        _wait_until_quiet(time.process_time, IDLE_CORES)
        _warm_up(measures)
        return Sides(measures, stack.pop_all().close)


class _Operations:
    """Puts and gets of one fabric."""

    def __init__(self, cluster: Cluster, clients: Clients, count: int, gets: int) -> None:
        self._clients = clients
        self._pids = [*cluster.pids().values(), *clients.pids]
        self._count = count
        self._gets = gets
        self._read = 0

    def run(self, run: int) -> Values:
        """Objects that were there from the start, then new ones: writes have consequences for a while."""
        size = len(PAYLOAD)
        put = Job("put", size, CLIENTS, ENDLESS_S, PUTS * size, 0, f"growth-{run}")
        get = Job("get-once", size, CLIENTS, ENDLESS_S, self._gets * size, self._count, "growth", self._read)
        values = self._timed("get", get) | self._timed("put", put)
        # Those that were under way when the last byte came are done too.
        self._read += self._gets + CLIENTS
        return values

    def _timed(self, name: str, job: Job) -> Values:
        before = sum(map(exact_cpu_seconds, self._pids))
        sample = self._clients.run(job)
        cpu_s = sum(map(exact_cpu_seconds, self._pids)) - before
        if sample.errors:
            raise BenchError(f"operations failed: {sample.errors}")
        waited_s = percentile(sample.latencies_s, 0.5)
        return {
            f"{name}_us": round(waited_s * 1e6, 1),
            f"{name}_cpu_us": round(cpu_s / len(sample.latencies_s) * 1e6, 1),
        }


class _Fragments:
    """Puts and gets of one engine."""

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine = engine
        self._count = count
        self._next = count
        self._payloads = Payloads(len(PAYLOAD))
        self._rng = random.Random(count)

    def run(self, _: int) -> Values:
        """Batches of new fragments, then single gets of any that was there from the start."""

        def put() -> None:
            write(self._engine, map(self._payloads.item, range(self._next, self._next + PUT_BATCH)))
            self._next += PUT_BATCH

        def get() -> None:
            read(self._engine, self._rng.randrange(self._count), len(PAYLOAD))

        puts = _timed("put", put, PUT_BATCHES, PUT_BATCH)
        return puts | _timed("get", get, GETS, 1)


class _Objects:
    """Commits and look-ups of one catalog."""

    def __init__(self, store: Store, count: int) -> None:
        self._store = store
        self._count = count
        self._next = count
        self._rng = random.Random(count)
        leases = FidLeases(lease_s=1e9)
        leases.grant(1, 1 << 40, now=0.0)
        self._catalog = Catalog(store, leases, OperationIds(), lambda group: group == GROUP)
        self._catalog.load()

    def run(self, _: int) -> Values:
        """Batches of commits that put one object each, then look-ups with the fragments, as a get does."""

        def commit() -> None:
            batch = DeltaStore(self._store)
            for number in range(self._next, self._next + COMMIT_BATCH):
                path = path_of(self._rng.randrange(self._count), extra=number)
                self._catalog.commit(batch, _put(path, number), 0.0, 0)
            self._store.write(batch.changes)
            self._next += COMMIT_BATCH

        def lookup() -> None:
            self._catalog.open(path_of(self._rng.randrange(self._count)), 0)

        commits = _timed("commit", commit, COMMIT_BATCHES, COMMIT_BATCH)
        return commits | _timed("lookup", lookup, GETS, 1)


def _put(path: str, number: int) -> Commit:
    fragment = FragmentRef(GROUP, number + 1, len(PAYLOAD), 1)
    operation = PutOperation(path, [fragment], digest=DIGEST, immutable=True)
    return Commit(1000, number.to_bytes(16, "big"), [operation])


def _timed(name: str, work: Callable[[], None], times: int, things: int) -> Values:
    """Microseconds that one thing takes, of which each call does so many."""
    cpu, started = time.process_time(), perf_counter()
    for _ in range(times):
        work()
    elapsed, cpu = perf_counter() - started, time.process_time() - cpu
    each = 1e6 / (times * things)
    return {f"{name}_us": round(elapsed * each, 2), f"{name}_cpu_us": round(cpu * each, 2)}


def _wait_until_quiet(cpu_seconds: Callable[[], float], idle_cores: float) -> None:
    """Until LevelDB has put in order what was just filled in, and the roles are done with it."""
    until = perf_counter() + PATIENCE_S
    quiet = 0
    while quiet < QUIET_TIMES and perf_counter() < until:
        before = cpu_seconds()
        time.sleep(QUIET_S)
        quiet = quiet + 1 if cpu_seconds() - before < idle_cores * QUIET_S else 0


def _read_all(directory: Path) -> None:
    """Bring what lies there into memory: a system may have dropped what nobody has read for a while."""
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError), path.open("rb", buffering=0) as file:
            while file.read(READ_BYTES):
                pass


def _warm_up(measures: dict[str, Measure]) -> None:
    """Do everything once."""
    for measure in measures.values():
        measure(-1)
