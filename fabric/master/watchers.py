"""Who keeps copies of names, and what has to wait until they have let go of them.

A registry process answers most questions from copies of names (tags, links) that it has seen.  That a
deletion or a moved tag reaches all of them at once is kept by leases:

- A watcher asks with ``Watch``, all the time; each question makes its lease anew, and tells up to which
  change it has let go of its copies.  It uses them only while the lease of the last *answer* holds, counted
  from its question: so it stops before we think that it has.
- A commit that replaces or removes a watched name is done and durable as ever, but its answer waits until
  every watcher has seen the change, or the lease of those that have not is over.  A name that did not
  exist is in no copy: new names wait for nobody.

A master that starts does not know the watchers of its earlier life.  Answers wait for as long as those may
still have a lease.  Which prefixes were ever watched is durable, so that only names under them wait.

What is told is a log of paths.  Their numbers begin anew with each term, above all of the earlier ones.  A
watcher is told what came after the number that it names itself, whatever we know of it: a question may come
twice, or so late that it makes an old acquaintance of somebody who has heard nothing.  Who names a number
that is no longer in the log is told to let go of everything.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from fabric.errors import Busy
from fabric.node.effects import Effect, Reply, Sender
from fabric.wire.messages import AnyOperation, Changes, CheckOperation, JoinOperation, MoveOperation, Watch

LOG_MAX = 4096
"""Changes remembered."""
PATHS_MAX = 400
"""In one answer, so that it fits a header frame.  Whoever missed more lets go of everything: with a part it
would have a lease for copies that are old."""
CHANGES_PER_TERM_MAX = 2**40
WATCHERS_MAX = 1024
PREFIXES_MAX = 64
"""Different ones, ever."""
PARKED_SHARE = 0.25
"""Of its lease a watcher waits for an answer when nothing changes."""

_NOBODY = float("-inf")


class Watcher(msgspec.Struct):
    """One cache of names."""

    lease_until: float
    seen: int
    """Up to here nothing has to wait for it."""
    parked: Sender | None = None
    """Its question, while it has no answer."""
    parked_seen: int = 0
    """The number that it named."""
    answer_at: float = 0.0


class Held(msgspec.Struct, frozen=True):
    """The answer to a commit, until all watchers have seen change number ``sequence``."""

    sequence: int
    earlier_life: bool
    """Also those that this master does not know."""
    effects: list[Effect]


class Watchers:
    """Leases, the log of changes, and held answers.  ``lease_s`` in seconds."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._watchers: dict[bytes, Watcher] = {}
        self._log: deque[str] = deque(maxlen=LOG_MAX)
        self._sequence = 0
        self._held: deque[Held] = deque()
        self._strangers_until = _NOBODY
        self._prefixes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Answers held."""
        return len(self._held)

    def start(self, prefixes: Iterable[str], term: int, now: float) -> None:
        """A life begins; ``prefixes`` were watched in earlier ones."""
        self._sequence = term * CHANGES_PER_TERM_MAX
        self._prefixes = tuple(prefixes)
        if self._prefixes:
            self._strangers_until = now + self._lease_s

    def new_prefixes(self, watch: Watch) -> list[str]:
        """Those that must become durable before the watcher may be answered.  Raises Busy."""
        new = [prefix for prefix in watch.prefixes if not prefix.startswith(self._prefixes or ("\0",))]
        if new and len(self._prefixes) + len(new) > PREFIXES_MAX:
            raise Busy("too many different prefixes are watched")
        return new

    def add_prefixes(self, prefixes: Iterable[str]) -> None:
        """From now on these are watched too."""
        self._prefixes = tuple(dict.fromkeys([*self._prefixes, *prefixes]))

    # --- watching ---------------------------------------------------------------------------------

    def watch(self, message: Watch, sender: Sender, now: float) -> list[Effect]:
        """Make its lease anew, note what it has seen, and answer it now or later.  Raises Busy."""
        self._expire(now)
        known = self._watchers.get(message.watcher)
        if known is None:
            if len(self._watchers) >= WATCHERS_MAX:
                raise Busy("too many watchers")
            # It uses no copies before it is answered, and then it knows of all that is in the log now.
            known = self._watchers[message.watcher] = Watcher(0.0, self._sequence)
        elif message.seen <= self._sequence:
            known.seen = max(known.seen, message.seen)
        known.lease_until = now + self._lease_s
        effects = self._answer(known) if known.parked is not None else []
        known.parked, known.parked_seen = sender, message.seen
        known.answer_at = now + min(self._lease_s * PARKED_SHARE, message.deadline_ms / 2000)
        if message.seen != self._sequence:
            effects += self._answer(known)
        return effects + self._release(now)

    def _answer(self, watcher: Watcher) -> list[Effect]:
        """Answer a parked question with all that came after the number it named."""
        sender, watcher.parked = watcher.parked, None
        assert sender is not None
        missed = self._sequence - watcher.parked_seen
        lost = not 0 <= missed <= min(len(self._log), PATHS_MAX)
        start = len(self._log) - missed
        paths = [] if lost else list(itertools.islice(self._log, start, None))
        return [Reply(sender, Changes(self._sequence, paths, lost, int(self._lease_s * 1000)))]

    # --- changing ---------------------------------------------------------------------------------

    def after_change(self, paths: Sequence[str], effects: list[Effect], now: float) -> list[Effect]:
        """A commit that replaced or removed ``paths`` is durable: its effects, now or later."""
        watched = [path for path in paths if path.startswith(self._prefixes)] if self._prefixes else []
        if not watched:
            return effects
        self._log.extend(watched)
        self._sequence += len(watched)
        return self._hold(effects, now)

    def after_repetition(
        self, operations: Iterable[AnyOperation], effects: list[Effect], now: float
    ) -> list[Effect]:
        """A commit was done before, and its first answer may still be held."""
        if not self._prefixes or not any(self._may_change(operation) for operation in operations):
            return effects
        return self._hold(effects, now)

    def _may_change(self, operation: AnyOperation) -> bool:
        if isinstance(operation, CheckOperation):
            return False
        if isinstance(operation, MoveOperation):
            return any(path.startswith(self._prefixes) for path in (operation.source, operation.target))
        if isinstance(operation, JoinOperation):
            return any(path.startswith(self._prefixes) for path in (operation.source, operation.path))
        return operation.path.startswith(self._prefixes)

    def _hold(self, effects: list[Effect], now: float) -> list[Effect]:
        self._held.append(Held(self._sequence, now < self._strangers_until, effects))
        told: list[Effect] = []
        for watcher in self._watchers.values():
            if watcher.parked is not None and watcher.parked_seen != self._sequence:
                told += self._answer(watcher)
        return told + self._release(now)

    def _release(self, now: float) -> list[Effect]:
        """What nobody has to see any more.  Held answers are in the order of their sequence."""
        self._expire(now)
        seen = min((watcher.seen for watcher in self._watchers.values()), default=self._sequence)
        effects: list[Effect] = []
        while self._held:
            first = self._held[0]
            if first.sequence > seen or (first.earlier_life and now < self._strangers_until):
                break
            effects += self._held.popleft().effects
        return effects

    # --- time -------------------------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        over = [name for name, watcher in self._watchers.items() if watcher.lease_until <= now]
        for name in over:
            del self._watchers[name]
        if self._strangers_until <= now:
            self._strangers_until = _NOBODY

    def on_tick(self, now: float) -> list[Effect]:
        """Answer who has waited long enough; go on without those whose lease is over."""
        effects: list[Effect] = []
        for watcher in self._watchers.values():
            if watcher.parked is not None and watcher.answer_at <= now:
                effects += self._answer(watcher)
        return effects + self._release(now)

    def next_deadline(self) -> float | None:
        """When a question has waited long enough, or a lease that something waits for is over."""
        dues = [watcher.answer_at for watcher in self._watchers.values() if watcher.parked is not None]
        if self._held:
            first = self._held[0]
            dues += [w.lease_until for w in self._watchers.values() if w.seen < first.sequence]
            if first.earlier_life and self._strangers_until != _NOBODY:
                dues.append(self._strangers_until)
        return min(dues, default=None)
