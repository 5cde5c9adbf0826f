"""Virtual time: one queue of events, one source of chance.

Events run in the order of (time, number), so a seed decides everything.  ``digest`` covers every message and
everything that happens to a process: two runs are the same if their digests are.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable

import xxhash

from fabric.wire.messages import Assignment, Audited, AuditFragments, Heartbeat
from sim.network import Network
from sim.process import Process
from sim.watcher import Violation, Watchers

EVENTS_PER_MOMENT_MAX = 50_000
START_S = 1000.0
WALL_S = 1_700_000_000.0
TRACE_LINES = 400
"""The last ones, without routine: heartbeats, repeated assignments, audits."""
_ROUTINE = (Heartbeat, AuditFragments, Audited)


class World:
    """Everything that is simulated, and now."""

    def __init__(self, seed: int, trace_lines: int = TRACE_LINES) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = START_S
        self.processes: dict[str, Process] = {}
        self.watchers = Watchers()
        self.network = Network(self)
        self.events = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._digest = xxhash.xxh3_64()
        self._shows_all = trace_lines > TRACE_LINES
        self._assigned: dict[tuple[str, str], Assignment] = {}
        self._trace: deque[tuple[float, tuple[object, ...]]] = deque(maxlen=trace_lines)

    def add(self, process: Process) -> None:
        """A new process; it does not run yet."""
        self.processes[process.name] = process
        self.network.listen(process)

    # --- time -------------------------------------------------------------------------------------

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do it so many seconds from now."""
        self._number += 1
        heapq.heappush(self._queue, (self.now + max(0.0, delay_s), self._number, action))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; True as soon as ``until`` holds, which is asked at every quarter of a second."""
        end = self.now + seconds
        while self.now < end:
            if until():
                return True
            self._run_to(min(end, self.now + 0.25))
        return until()

    def _run_to(self, end: float) -> None:
        queue, at_once, moment = self._queue, 0, self.now
        while queue and queue[0][0] <= end:
            at, _, action = heapq.heappop(queue)
            at_once = at_once + 1 if at == moment else 0
            if at_once > EVENTS_PER_MOMENT_MAX:
                raise Violation("time", "time stands still: a role asks to be called again and again")
            moment = self.now = max(self.now, at)
            self.events += 1
            action()
        self.now = end

    # --- what is seen -----------------------------------------------------------------------------

    def note(self, *what: object) -> None:
        """Something happened to a process, a disk, the network or a client."""
        self._trace.append((self.now, what))
        self._digest.update(repr((self.now, what)).encode())

    def saw(self, source: str, target: str, frame: bytes, message: object, length: int) -> None:
        """A message was delivered."""
        if self._shows_all or not self._is_routine(source, target, message):
            self._trace.append((self.now, (source, "->", target, message, length)))
        self._digest.update(frame)
        self._digest.update(f"{self.now}{target}{length}".encode())

    def _is_routine(self, source: str, target: str, message: object) -> bool:
        if isinstance(message, Assignment):
            link = (source, target)
            before, self._assigned[link] = self._assigned.get(link), message
            return before == message
        return isinstance(message, _ROUTINE)

    def inspect(self, process: Process) -> None:
        """A role has handled something."""
        for look in self.watchers.inspects:
            look(process)

    def digest(self) -> str:
        """Of all that happened so far."""
        return self._digest.hexdigest()

    def trace(self) -> list[str]:
        """The last things that happened, readable."""
        return [f"{at - START_S:10.6f}  {' '.join(map(_short, what))}" for at, what in self._trace]


def _short(part: object) -> str:
    text = part if isinstance(part, str) else repr(part)
    return text if len(text) <= 300 else text[:297] + "..."
