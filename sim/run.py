"""One run: a safety phase in which anything may fail, healing, and the demand that all is well then."""

from __future__ import annotations

import gc
import logging
import traceback
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from unittest import mock

import msgspec

from fabric.master import task_kinds
from fabric.settings import KIB
from fabric.wire.messages import StartTask
from sim.checkers import all_checkers
from sim.cluster import Cluster
from sim.faults import Faults, operations
from sim.shape import Shape
from sim.watcher import Violation
from sim.world import START_S as BEGIN_S
from sim.world import TRACE_LINES, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fabric.node.effects import Effect

START_S = 20.0
SAFETY_S = (8.0, 24.0)
HEAL_S = 90.0
"""After faults end, everything must be well within so long."""
TASKS_S = 250.0
"""A fragment that could not be moved is tried again after a minute."""
QUIET_S = 90.0
SHIFT_BYTES_MIN = 2 * KIB
"""Groups here hold little: a rebalance must not find them all about equally full."""
SEARCH_SHARES = (0.02, 0.1)
"""Of runs without and with operators: how many end with a search for orphans, the costliest part."""


class Result(msgspec.Struct, frozen=True):
    """What became of a run."""

    shape: Shape
    violation: str
    """Empty: all promises were kept."""
    digest: str
    events: int
    acknowledged: int
    refused: int
    unknown: int
    reads: int
    virtual_s: float
    faults: list[str]
    trace: list[str]

    faults_done: list[tuple[int, float, str]]
    """Number, time and kind."""
    begun: int
    """Things that clients began to do before healing."""

    @property
    def seed(self) -> int:
        """What decides it."""
        return self.shape.seed

    @property
    def promise(self) -> str:
        """The one that was broken, or nothing."""
        return self.violation.partition(":")[0]

    @property
    def replay(self) -> str:
        """The line that shows it again."""
        return f"{self.shape.line()} --trace"


class Run:
    """One seed."""

    def __init__(self, shape: Shape, trace_lines: int = TRACE_LINES) -> None:
        self.shape = shape
        self.world = World(shape.seed, trace_lines)
        self.cluster = Cluster(self.world, shape.groups, shape.proxies, shape.clients)
        self.cluster.history.begun_max = shape.operations
        for checker in all_checkers():
            checker.attach(self.cluster)
            self.world.watchers.add(checker)
        self.faults = Faults(self.cluster, shape.kinds, shape.only_faults)

    def judged(self) -> str:
        """Run it; returns the promise that was broken and how, or nothing.

        A role or a job that raises is a bug: its kind is "bug", its text the end of the traceback.
        """
        with _quietly(), mock.patch.object(task_kinds, "SHIFT_BYTES_MIN", SHIFT_BYTES_MIN):
            try:
                self.go()
            except Violation as broken:
                return str(broken)
            except Exception:  # noqa: BLE001  whatever a role raises is a finding of this seed
                return f"bug: {traceback.format_exc(limit=-6)}"
        return ""

    def go(self) -> None:
        """Raises Violation."""
        world, cluster = self.world, self.cluster
        cluster.start()
        if not world.run(START_S, cluster.is_begun):
            raise Violation("liveness", "a new cluster did not become writable")
        self.faults.begin()
        seconds = world.rng.uniform(*SAFETY_S)
        world.run(seconds if self.shape.seconds is None else self.shape.seconds)
        self.faults.heal()
        operated = bool(operations.KINDS.keys() & self.faults.kinds.keys())
        searches = world.rng.random() < SEARCH_SHARES[operated]
        for host in cluster.running():
            cluster.operator.set_status(host.name, "rw")
        # A write that hangs in a disk is a fault that lasts: it ends by itself.
        world.run(max(host.stalled_until for host in cluster.running()) - world.now)
        self._demand(HEAL_S, self._are_all_groups_open, "not all groups take writes")
        for worker in cluster.clients:
            worker.working = False
        self._demand(HEAL_S, lambda: not any(w.busy for w in cluster.clients), "clients are still busy")
        self._settle_orders()
        self._demand(HEAL_S, cluster.is_writable, "not all groups are whole and writable")
        self._demand(QUIET_S, self._is_quiet, "the cluster does not come to rest")
        if searches:
            self._search_for_orphans()
        self._write_and_read_all()
        for keeper in cluster.keepers:
            keeper.working = False
        # Second reads that lost a race may still be under way, and questions that wait for changes.
        world.run(self.cluster.settings.read_timeout_s + 0.5)
        self._demand(QUIET_S, self._is_quiet, "the cluster does not come to rest again")
        for checker in world.watchers.all:
            checker.at_end()

    def _settle_orders(self) -> None:
        """What an operator has begun ends, and what it leaves behind is put in order."""
        cluster = self.cluster
        self._demand(HEAL_S, lambda: not cluster.operator.waiting, "the master does not answer an operator")
        self._demand(TASKS_S, self._has_no_tasks, "an operator's task does not end")
        nodes = cluster.master.process.role._membership.nodes
        for node in [node for node in nodes.values() if node.is_retired]:
            cluster.chunks[node.server].replace_disk(0.5)

    def _are_all_groups_open(self) -> bool:
        return all(map(self.cluster.is_group_open, self.cluster.groups()))

    def _has_no_tasks(self) -> bool:
        """Has every order been carried out, or given up?"""
        process = self.cluster.master.process
        if not process.alive:
            return False
        return all(task.state != "running" for task in process.role._orders.tasks.statuses(self.world.now))

    def _search_for_orphans(self) -> None:
        """When the last lease of fids that clients may have used is over."""
        cluster = self.cluster
        self.world.run(cluster.settings.fid_lease_s + 1.0)
        cluster.operator.order(lambda ms: StartTask(ms, "gc"))
        self._demand(20.0, lambda: not cluster.operator.waiting, "the master does not answer an operator")
        self._demand(HEAL_S, self._has_no_tasks, "the search for orphans does not end")
        self._demand(QUIET_S, self._is_quiet, "orphans are not freed")
        cluster.searched = True

    def _demand(self, seconds: float, until: Callable[[], bool], otherwise: str) -> None:
        if not self.world.run(seconds, until):
            raise Violation("liveness", f"{otherwise}, {seconds:.0f} s after faults ended")

    def _is_quiet(self) -> bool:
        """All deletes are done, and no damage is known that is not repaired."""
        if not self.cluster.is_writable():
            return False
        deletion = self.cluster.master.process.role._deletion
        hosts = [host for host in self.cluster.running() if host.scrubs]
        damaged = any(host.engine is None or host.engine.status().quarantined for host in hosts)
        return not deletion.total() and deletion.due_at() is None and not damaged

    def _write_and_read_all(self) -> None:
        """Every client can write, and read every path that there is."""
        world, history = self.world, self.cluster.history
        for state in history.paths.values():
            state.strict = True
        failed: list[str] = []
        left = 0

        def done(code: str) -> list[Effect]:
            nonlocal left
            left -= 1
            return []

        for worker in self.cluster.clients:
            state, value = history.state(f"{worker.name}/last"), worker.rng.randbytes(500)
            left += 1
            worker.process.act(partial(worker.put_last, state, value, done))
        self._demand(20.0, lambda: left == 0, "a client cannot write")
        failed += [s.path for s in history.paths.values() if s.path.endswith("/last") and not s.is_certain]
        if failed:
            raise Violation("liveness", f"after healing, writes fail: {failed}")
        for number, path in enumerate(list(history.paths)):
            worker = self.cluster.clients[number % len(self.cluster.clients)]
            left += 1
            worker.process.act(partial(worker.read_path, path, done))
        self._demand(20.0, lambda: left == 0, "reads do not end")
        world.note("all read", len(history.paths))


@contextmanager
def _quietly() -> Iterator[None]:
    """No log, and no collection of garbage while one short run lasts."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(before)


def simulate(seed: int, kinds: Sequence[str] = ()) -> Result:
    """Run one seed, with these kinds of faults; none: the seed chooses."""
    return simulate_shape(Shape(seed, tuple(kinds)))


def simulate_shape(shape: Shape, trace_lines: int = TRACE_LINES) -> Result:
    """Run it."""
    run = Run(shape, trace_lines)
    violation = run.judged()
    history, world = run.cluster.history, run.world
    return Result(
        shape,
        violation,
        world.digest(),
        world.events,
        history.acknowledged,
        history.refused,
        history.unknown,
        history.reads,
        world.now - BEGIN_S,
        list(run.faults.kinds),
        world.trace(),
        list(run.faults.done),
        history.begun,
    )
