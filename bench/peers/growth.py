"""What a put and a get cost when very much is stored, against the same when little is.

What depends on how much there is are two look-ups: a chunk server's index, and the master's catalog.  Each
is measured through the code of its role, in this process, on the real disk, in turns with a small
store.  Times are those of a client that waits (``…_us``, fdatasync included) and of the processor
(``…_cpu_us``, all threads, LevelDB's compaction included).  Everything is in the page cache: what is
measured is the cost of size, not of a slow disk.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter

from bench.engine.store import GROUP, Payloads, open_engine, read, write
from bench.peers.sides import Measure, Sides, Values
from bench.peers.stage import Stage
from bench.peers.stores import DIGEST, PAYLOAD, fill_catalog, fill_fragments, path_of
from fabric.chunk.engine import Engine
from fabric.master.catalog import Catalog
from fabric.master.delta import DeltaStore
from fabric.master.fids import FidLeases
from fabric.master.operation_ids import OperationIds
from fabric.master.store import Store
from fabric.wire.messages import Commit, FragmentRef, PutOperation

FEW = 10_000
GETS = 20_000
PUT_BATCHES, PUT_BATCH = 64, 64
"""Puts share an fdatasync, as those of many clients do."""
COMMIT_BATCHES, COMMIT_BATCH = 64, 16
QUIET_S, QUIET_TIMES, QUIET_SHARE, PATIENCE_S = 0.25, 6, 0.02, 120.0


def index(stage: Stage) -> Sides:
    """Two engines, one with many fragments and one with few."""
    many = stage.effort.many_fragments
    directory = stage.scratch("growth-index")
    measures: dict[str, Measure] = {}
    with ExitStack() as stack:
        for count in (many, FEW):
            home = directory / str(count)
            fill_fragments(home, count)
            engine = stack.enter_context(open_engine(home))
            measures[f"{count:,} fragments"] = _Fragments(engine, count).run
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
        _warm_up(measures)
        return Sides(measures, stack.pop_all().close)


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


def _warm_up(measures: dict[str, Measure]) -> None:
    """Wait until LevelDB has put in order what was just filled in; then do everything once."""
    until = perf_counter() + PATIENCE_S
    quiet = 0
    while quiet < QUIET_TIMES and perf_counter() < until:
        before = time.process_time()
        time.sleep(QUIET_S)
        quiet = quiet + 1 if time.process_time() - before < QUIET_SHARE * QUIET_S else 0
    for measure in measures.values():
        measure(-1)
