"""A simulated process: a role, its lanes, and what can happen to it.

It does with effects what the ZeroMQ loop does.  Everything that is to happen to a process goes through
``later``, so that it does not reach a process that has died since, and waits for one that is stopped.
Jobs of a lane take simulated time; the real work is done at some moment in it.  A kill in that time may
leave the work done in part: ``interrupt`` of what was built does that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fabric.errors import FabricError, Unavailable
from fabric.node.effects import WORKER, Effect, Exit, Publish, Reply, Run, Send, Sender
from fabric.node.role import Role
from fabric.wire import codec

if TYPE_CHECKING:
    from sim.world import World

SUPERVISOR_PAUSE_S = 1.0


class LaneSpec(msgspec.Struct, frozen=True):
    """What runs a lane's jobs, on how many threads, and how long one takes."""

    run: Callable[[object], object]
    duration_s: Callable[[object], float]
    threads: int = 1


class Built(msgspec.Struct, frozen=True):
    """What one start of a process consists of."""

    role: Role
    lanes: dict[str, LaneSpec] = {}
    interrupt: Callable[[object], None] = lambda job: None
    """Do a part of a job, as far as it comes before the process dies."""
    close: Callable[[], None] = lambda: None
    """What a polite end does."""


class _Job(msgspec.Struct, eq=False):
    job: object
    done: bool = False
    result: object = None


class Lane:
    """Jobs in order, on a number of simulated threads."""

    def __init__(self, process: Process, spec: LaneSpec) -> None:
        self._process, self._spec = process, spec
        self.waiting: deque[object] = deque()
        self.running: list[_Job] = []

    def submit(self, job: object) -> None:
        self.waiting.append(job)
        self._begin()

    def _begin(self) -> None:
        while self.waiting and len(self.running) < self._spec.threads:
            running = _Job(self.waiting.popleft())
            self.running.append(running)
            duration_s = self._spec.duration_s(running.job)
            # The work may be done long before its result is known; half of the time at the last moment.
            works_at_s = duration_s * min(1.0, 2.0 * self._process.world.rng.random())
            self._process.later(works_at_s, partial(self._work, running, duration_s - works_at_s))

    def _work(self, running: _Job, left_s: float) -> None:
        running.done = True
        running.result = self._spec.run(running.job)
        if not self._process.alive:
            return  # it was the job's last step
        if left_s:
            self._process.later(left_s, lambda: self._end(running))
        else:
            self._end(running)

    def _end(self, running: _Job) -> None:
        self.running.remove(running)
        self._begin()
        self._process.receive(running.result, WORKER, None)


class Process:
    """One process under one name; ``incarnation`` counts its lives."""

    def __init__(
        self, world: World, name: str, endpoint: str, build: Callable[[Process], Built], kind: str
    ) -> None:
        self.world, self.name, self.endpoint, self.kind = world, name, endpoint, kind
        self._build = build
        self.incarnation = 0
        self.alive = False
        self.stopped_at: float | None = None
        self.wanted = True
        """Does its supervisor start it again when it dies?"""
        self.built: Built | None = None
        self.lanes: dict[str, Lane] = {}
        self.exits: list[str] = []
        self._backlog: list[Callable[[], None]] = []
        self._unsent: deque[Sender] = deque()
        self._doing = False
        self._is_in_turn = False
        """Something has come, and ``on_turn_end`` will be called."""
        self._tick_at: float | None = None

    @property
    def role(self) -> Any:
        """The role of this life, open to faults and checkers, which look at what no message shows."""
        assert self.built is not None
        return self.built.role

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life, unless one is under way.  A start that fails is tried again."""
        if self.alive:
            return
        self.incarnation += 1
        self.world.note("start", self.name, self.incarnation)
        try:
            self.built = self._build(self)
        except FabricError as error:
            self.exits.append(f"cannot start: {error.message}")
            self.world.note("cannot start", self.name, error.message)
            self._restart_later(SUPERVISOR_PAUSE_S)
            return
        self.alive, self.stopped_at, self._tick_at = True, None, None
        self._backlog = []
        self._unsent.clear()
        self._is_in_turn = False
        self.lanes = {name: Lane(self, spec) for name, spec in self.built.lanes.items()}
        for look in self.world.watchers.starts:
            look(self)
        self._do(self.built.role.start(self.world.now))

    def kill(self, restart_after_s: float | None = None) -> None:
        """SIGKILL.  What its lanes were doing may be done in part."""
        if not self.alive:
            return
        self.world.note("kill", self.name, self.incarnation)
        built = self.built
        assert built is not None
        unfinished = [r.job for lane in self.lanes.values() for r in lane.running if not r.done]
        self._die(restart_after_s)
        for job in unfinished:
            if self.world.rng.random() < 0.7:
                built.interrupt(job)

    def end(self, restart_after_s: float | None = None) -> None:
        """SIGTERM: the lanes finish what they have, the role hears of it no more."""
        if not self.alive or self.stopped_at is not None:
            return
        self.world.note("end", self.name, self.incarnation)
        built = self.built
        assert built is not None
        for name, lane in self.lanes.items():
            jobs = [r.job for r in lane.running if not r.done] + list(lane.waiting)
            for job in jobs:
                built.lanes[name].run(job)
        self._die(restart_after_s)
        built.close()

    def stop(self) -> None:
        """SIGSTOP."""
        if self.alive and self.stopped_at is None:
            self.world.note("stop", self.name)
            self.stopped_at = self.world.now
            self.world.network.on_stopped(self)

    def go_on(self) -> None:
        """SIGCONT: everything that has come meanwhile comes now."""
        if not self.alive or self.stopped_at is None:
            return
        self.world.note("go on", self.name)
        self.stopped_at = None
        backlog, self._backlog = self._backlog, []
        life = self.incarnation
        for action in backlog:
            if self.alive and self.incarnation == life:
                action()

    def _die(self, restart_after_s: float | None) -> None:
        self.alive, self.built, self.stopped_at = False, None, None
        self.lanes = {}
        self._backlog = []
        self.world.network.on_death(self)
        if restart_after_s is not None:
            self._restart_later(restart_after_s)

    def _restart_later(self, pause_s: float) -> None:
        life = self.incarnation

        def again() -> None:
            if self.wanted and not self.alive and self.incarnation == life:
                self.start()

        self.world.after(pause_s, again)

    # --- events -----------------------------------------------------------------------------------

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do it then, in this life of the process."""
        life = self.incarnation

        def when_due() -> None:
            if not self.alive or self.incarnation != life:
                return
            if self.stopped_at is not None:
                self._backlog.append(action)
            else:
                action()

        self.world.after(delay_s, when_due)

    def now_or_later(self, action: Callable[[], None]) -> None:
        """Do it now, or when it is continued if it is stopped."""
        if self.stopped_at is not None:
            self._backlog.append(action)
        else:
            action()

    def receive(self, message: object, sender: Sender, payload: Any) -> None:
        """Hand something to the role and do what it says."""
        assert self.built is not None
        self._do(self.built.role.receive(message, sender, self.world.now, payload))

    def act(self, action: Callable[[], list[Effect]]) -> None:
        """Let the role of a client do something of its own accord."""
        self._do(action())

    def unsent(self, sender: Sender) -> None:
        """This request cannot be answered any more: the role hears of it next."""
        self._unsent.append(sender)
        if not self._doing:
            self._do([])

    def _tick(self, at: float) -> None:
        if self._tick_at != at or self.built is None:
            return
        self._tick_at = None
        due = self.built.role.next_deadline()
        if due is not None and due <= self.world.now:
            self._do(self.built.role.on_tick(self.world.now))
        else:
            self._schedule_tick()

    def _schedule_tick(self) -> None:
        if self.built is None:
            return
        due = self.built.role.next_deadline()
        if due is None:
            self._tick_at = None
            return
        due = max(due, self.world.now)
        if self._tick_at is None or due != self._tick_at:
            self._tick_at = due
            self.later(due - self.world.now, lambda: self._tick(due))

    def _do(self, effects: list[Effect], *, is_turn_over: bool = False) -> None:
        life = self.incarnation
        self._doing = True
        self._do_each(effects, life)
        if not is_turn_over:
            self._end_turn(life)
        while self._unsent and self.alive and self.incarnation == life:
            assert self.built is not None
            sender = self._unsent.popleft()
            answer = codec.failed(Unavailable(f"{sender.route!s} cannot be reached"))
            self._do_each(self.built.role.receive(answer, sender, self.world.now), life)
            self._end_turn(life)
        self._doing = False
        if self.alive and self.incarnation == life:
            self._schedule_tick()
            self.world.inspect(self)

    def _end_turn(self, life: int) -> None:
        """Now, or when more may have come."""
        turns_s = self.world.network.turns_s
        if not turns_s:
            if self.alive and self.incarnation == life:
                assert self.built is not None
                self._do_each(self.built.role.on_turn_end(self.world.now), life)
        elif not self._is_in_turn:
            self._is_in_turn = True
            self.later(self.world.rng.uniform(0.0, turns_s), self._end_long_turn)

    def _end_long_turn(self) -> None:
        assert self.built is not None
        self._is_in_turn = False
        self._do(self.built.role.on_turn_end(self.world.now), is_turn_over=True)

    def _do_each(self, effects: list[Effect], life: int) -> None:
        network = self.world.network
        for effect in effects:
            if not self.alive or self.incarnation != life:
                return
            if isinstance(effect, Reply):
                network.reply(self, effect)
            elif isinstance(effect, Send):
                network.send(self, effect)
            elif isinstance(effect, Run):
                self.lanes[effect.lane].submit(effect.job)
            elif isinstance(effect, Publish):
                network.publish(self, effect.message)
            elif isinstance(effect, Exit):
                self.world.note("exit", self.name, effect.reason)
                self.exits.append(effect.reason)
                self._die(SUPERVISOR_PAUSE_S)
