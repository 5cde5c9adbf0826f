"""Catching up: copy from the other members what this server lacks, until it lacks nothing.

It goes round by round.  A round visits every member, one after the other::

    own digests, its digests -> buckets that differ -> its list of such a bucket, page by page
        -> what is missing here   -> pulled, a window of bytes at a time
        -> what is dead here      -> the member is told: it has missed a deletion

The next page is asked for as soon as all of the last one is being pulled: an empty disk is filled as fast as
it can write, and no more than one page waits here.

A round that could not finish is followed by another after a pause.  One that did leaves nothing missing,
and ends with ``synced``: the digest over all that is here then.  Every member does the same, so each comes
to hold what any of them holds, and all digests are equal; until they are, the master does not move.  Rounds
go on at a slow pace; a change here takes ``synced`` back and begins one at once.

A server that is to become a member copies from members that are written to meanwhile.  A round that copied
much took long, so there is much to copy again: it is followed by another at once, until one copies little or
some have been tried.  What is left then is copied when the members stand still.

That what is dead here is dead everywhere needs no asking: a tombstone is only made for a fragment that
was aborted before it could be committed, or that the master has let go.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from fabric.chunk.jobs import CompareDone, CompareJob, DigestJob, DigestsDone
from fabric.chunk.pull import Puller
from fabric.chunk.read_queue import LANE
from fabric.node.calls import Calls
from fabric.node.effects import Effect, Payload, Run
from fabric.settings import BUCKETS, MIB, UPKEEP_RECORD_BYTES
from fabric.wire.messages import (
    AbortFragment,
    BucketEntries,
    BucketEntry,
    Buckets,
    ListBucket,
    ListBuckets,
    Message,
)

LIST_TIMEOUT_MS = 5_000
RETRY_S = 1.0
PAUSE_S = 2.0
WINDOW_BYTES = 32 * MIB
WINDOW_COUNT = 64
ROUND_BYTES_MAX = 64 * MIB
"""A round that copied more does not end with ``synced``."""
BURST_S = 0.05
"""What was not used of the rate is made up for within so long."""
LARGE_ROUNDS_MAX = 5
"""In a row; the last of them does: writes come as fast as they can be copied."""

E = TypeVar("E")


class CatchUp:
    """The catching up of one epoch.  Ends by ``stop``, never by itself."""

    def __init__(
        self,
        group: int,
        peers: list[str],
        calls: Calls,
        puller: Puller,
        rng: random.Random,
        bytes_per_s: int = 2**62,
    ) -> None:
        """``bytes_per_s``: at most so much is copied."""
        self._group = group
        self._peers = peers
        self._calls = calls
        self._puller = puller
        self._rng = rng
        self._bytes_per_s = bytes_per_s
        self._paid_at = 0.0
        """When what was asked for so far is within the rate."""
        self._resume_at: float | None = None
        self.synced = b""
        """The digest over all buckets when nothing is missing; else empty."""
        self.conflicts = 0
        """Fragments that a member holds with other bytes, as of this round."""
        self._stopped = False
        self._in_round = False
        self._again_at = 0.0
        self._mutations = 0
        self._large_rounds = 0
        # Of the round:
        self._to_visit: list[str] = []
        self._peer = ""
        self._failed = False
        self._copied_bytes = 0
        # Of the visit:
        self._own: list[bytes] = []
        self._buckets: deque[int] = deque()
        self._wanted: deque[BucketEntry] = deque()
        self._pulling = 0
        self._pulling_bytes = 0
        self._asked = (0, 0)
        self._next_page: tuple[int, int] | None = None
        self._listing = False
        """A page is asked for, or compared."""

    def stop(self) -> None:
        """Do nothing more, whatever still comes back."""
        self._stopped = True
        self.synced = b""

    def next_deadline(self) -> float | None:
        """When the next round begins; while one is under way, when the rate lets it go on."""
        if self._stopped:
            return None
        return self._resume_at if self._in_round else self._again_at

    def on_tick(self, now: float) -> list[Effect]:
        """Begin a round, or go on with one, if it is time."""
        due_at = self.next_deadline()
        if due_at is None or now < due_at:
            return []
        return self._go_on(now) if self._in_round else self._begin_round()

    def on_mutations(self, mutations: int, now: float) -> None:
        """The engine's counter of changes: another one than at ``synced`` takes that back."""
        if self.synced and mutations != self._mutations:
            self.synced = b""
            self._again_at = now

    # --- a round ----------------------------------------------------------------------------------

    def _begin_round(self) -> list[Effect]:
        self._in_round = True
        self._to_visit = list(self._peers)
        self._rng.shuffle(self._to_visit)
        self._failed = False
        self._copied_bytes = 0
        self.conflicts = 0
        return self._visit_next()

    def _visit_next(self) -> list[Effect]:
        """Look at what is here; then at the next member, or end the round."""
        return [Run(LANE, DigestJob(self._unless_stopped(self._on_own_digests)))]

    def _on_own_digests(self, done: DigestsDone, now: float) -> list[Effect]:
        if not self._to_visit:
            return self._end_round(done, now)
        self._own = done.digests
        self._peer = self._to_visit.pop()
        return self._ask(ListBuckets(LIST_TIMEOUT_MS, self._group), self._on_buckets, now)

    def _end_round(self, done: DigestsDone, now: float) -> list[Effect]:
        self._in_round = False
        self.synced = b""
        self._large_rounds = self._large_rounds + 1 if self._copied_bytes >= ROUND_BYTES_MAX else 0
        if self._failed:
            self._again_at = now + RETRY_S
        elif 0 < self._large_rounds < LARGE_ROUNDS_MAX:
            return self._begin_round()
        else:
            self.synced, self._mutations = done.overall, done.mutations
            self._again_at = now + PAUSE_S
        return []

    # --- a visit ----------------------------------------------------------------------------------

    def _on_buckets(self, message: Message, payload: Payload | None, now: float) -> list[Effect]:
        if not isinstance(message, Buckets) or len(message.digests) != BUCKETS:
            return self._leave_member(now)
        self._buckets = deque(
            bucket for bucket in range(BUCKETS) if message.digests[bucket] != self._own[bucket]
        )
        return self._go_on(now)

    def _leave_member(self, now: float) -> list[Effect]:
        """This member cannot be compared with now."""
        self._failed = True
        self._buckets.clear()
        self._wanted.clear()
        self._next_page = None
        return self._go_on(now)

    def _go_on(self, now: float) -> list[Effect]:
        """Fill the window; when nothing waits for it any more, ask for the next page, if there is one."""
        effects = self._pull_more(now)
        if self._wanted or self._listing:
            return effects
        if self._next_page is not None:
            return effects + self._list(*self._next_page, now)
        if self._buckets:
            return effects + self._list(self._buckets.popleft(), 0, now)
        return effects if self._pulling else effects + self._visit_next()

    def _list(self, bucket: int, after: int, now: float) -> list[Effect]:
        self._asked = (bucket, after)
        self._next_page = None
        self._listing = True
        return self._ask(ListBucket(LIST_TIMEOUT_MS, self._group, bucket, after), self._on_page, now)

    def _on_page(self, message: Message, payload: Payload | None, now: float) -> list[Effect]:
        bucket, after = self._asked
        last = message.entries[-1].fid if isinstance(message, BucketEntries) and message.entries else 0
        if (
            not isinstance(message, BucketEntries)
            or message.bucket != bucket
            or (message.more and last <= after)
        ):
            self._listing = False
            return self._leave_member(now)
        self._next_page = (bucket, last) if message.more else None
        return [Run(LANE, CompareJob(self._unless_stopped(self._on_compared), message.entries))]

    def _on_compared(self, done: CompareDone, now: float) -> list[Effect]:
        self._listing = False
        if done.error is not None:
            self._failed = True
        self.conflicts += len(done.conflicting)
        effects: list[Effect] = [
            self._calls.start(self._peer, AbortFragment(LIST_TIMEOUT_MS, self._group, fid), now, _ignore)
            for fid in done.dead
        ]
        self._wanted.extend(done.missing)
        return effects + self._go_on(now)

    def _pull_more(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        self._resume_at = None
        while self._wanted and self._has_room(self._wanted[0].length):
            if now < self._paid_at:
                self._resume_at = self._paid_at
                return effects
            entry = self._wanted.popleft()
            cost_s = (entry.length + UPKEEP_RECORD_BYTES) / self._bytes_per_s
            self._paid_at = max(self._paid_at, now - BURST_S) + cost_s
            self._pulling += 1
            self._pulling_bytes += entry.length
            effects += self._puller.pull(entry, [self._peer], now, self._on_pulled(entry))
        return effects

    def _has_room(self, length: int) -> bool:
        if not self._pulling:
            return True
        return self._pulling < WINDOW_COUNT and self._pulling_bytes + length <= WINDOW_BYTES

    def _on_pulled(self, entry: BucketEntry) -> Callable[[bool, float], list[Effect]]:
        def on_pulled(settled: bool, now: float) -> list[Effect]:
            self._pulling -= 1
            self._pulling_bytes -= entry.length
            if settled:
                self._copied_bytes += entry.length
            else:
                self._failed = True
            return [] if self._stopped else self._go_on(now)

        return on_pulled

    # --- asking -----------------------------------------------------------------------------------

    def _ask(
        self,
        request: ListBuckets | ListBucket,
        then: Callable[[Message, Payload | None, float], list[Effect]],
        now: float,
    ) -> list[Effect]:
        def on_answer(message: Message, payload: Payload | None, now: float) -> list[Effect]:
            return [] if self._stopped else then(message, payload, now)

        return [self._calls.start(self._peer, request, now, on_answer)]

    def _unless_stopped(self, then: Callable[[E, float], list[Effect]]) -> Callable[[E, float], list[Effect]]:
        return lambda event, now: [] if self._stopped else then(event, now)


def _ignore(message: Message, payload: Payload | None, now: float) -> list[Effect]:
    return []
