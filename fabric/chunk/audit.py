"""The audit: all live fragments of this server, told to the master page by page.

The master knows which of them nothing names and has them deleted, here and on the other members; and it says
what the catalog names and was not on the page, which is then fetched from the other members.  So garbage
that no deletion list remembers is found, and so is a hole that all members have in common.

A pass runs from time to time, and when the master asks for one by a number that is new.  Pages follow one
another at a pace that spares both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fabric.chunk.jobs import CompareDone, CompareJob, ListDone, ListJob
from fabric.chunk.read_queue import LANE
from fabric.chunk.standing import SYNC, WAIT, Standing
from fabric.node.calls import Calls
from fabric.node.effects import Effect, Payload, Run
from fabric.settings import BUCKETS, Settings
from fabric.wire.messages import Audited, AuditFragments, BucketEntry, Message

if TYPE_CHECKING:
    from typing import TypeAlias

PAGE_ENTRIES = 1_000
PAUSE_S = 0.002
ENTRY_PAUSE_S = 0.0001
"""Between two pages: the one, and the other for each fragment of the page."""
RETRY_S = 1.0
TIMEOUT_MS = 10_000

Missing: TypeAlias = "Callable[[Sequence[BucketEntry], float], list[Effect]]"
"""Takes fragments that should be here and are not, and the time."""


class Audit:
    """Where the pass under way is, and when the next one begins."""

    def __init__(
        self,
        server: str,
        master: str,
        settings: Settings,
        calls: Calls,
        standing: Standing,
        spread: float,
        missing: Missing,
    ) -> None:
        """``spread``, 0 to 1: how far into the interval the first pass begins, so that a cluster that was
        started at once does not audit at once."""
        self._server = server
        self._master = master
        self._interval_s = settings.audit_interval_s
        self._calls = calls
        self._standing = standing
        self._first_after_s = settings.audit_interval_s * spread
        self._missing = missing
        self.number = 0
        """Of the last pass that the master asked for; 0: none yet."""
        self._group = 0
        self._bucket = BUCKETS
        self._after = 0
        self._in_step = False
        self._is_ordered = False
        """The pass under way is the one that the master asked for."""
        self._ordered_anew = False
        """The master asked for a pass that has not begun."""
        self._due_at: float | None = None

    @property
    def progress(self) -> float:
        """Of the pass that was asked for last: 0 to 1."""
        if self._ordered_anew:
            return 0.0
        return self._bucket / BUCKETS if self._is_ordered else 1.0

    def on_assigned(self, number: int, now: float) -> None:
        """An assignment came; ``number`` is that of the audit it asks for, 0 if it asks for none."""
        if self._due_at is None:
            self._due_at = now + self._first_after_s
        if number and number != self.number:
            self.number = number
            self._ordered_anew = True
            self._due_at = now

    def next_deadline(self) -> float | None:
        """When the next page is due; None while one is under way, and when nothing may be told."""
        return None if self._in_step or self._standing.mode == WAIT else self._due_at

    def on_tick(self, now: float) -> list[Effect]:
        """Begin a pass, or go on with it."""
        due_at = self.next_deadline()
        if due_at is None or now < due_at:
            return []
        if self._bucket >= BUCKETS or self._ordered_anew or self._group != self._standing.group:
            self._bucket, self._after = 0, 0
            self._group = self._standing.group
            self._is_ordered, self._ordered_anew = self._ordered_anew, False
        self._in_step = True
        return [Run(LANE, ListJob(self._on_listed, self._bucket, self._after, PAGE_ENTRIES))]

    def _on_listed(self, done: ListDone, now: float) -> list[Effect]:
        if done.error is not None:
            return self._end_step(now + RETRY_S)

        def on_answer(message: Message, payload: Payload | None, now: float) -> list[Effect]:
            return self._on_answer(done, message, now)

        fids = [entry.fid for entry in done.entries]
        page = AuditFragments(
            TIMEOUT_MS, self._server, self._group, self._bucket, self._after, fids, done.more
        )
        return [self._calls.start(self._master, page, now, on_answer)]

    def _on_answer(self, listed: ListDone, message: Message, now: float) -> list[Effect]:
        if not isinstance(message, Audited):
            return self._end_step(now + RETRY_S)
        if listed.more:
            self._after = listed.entries[-1].fid
        else:
            self._bucket, self._after = self._bucket + 1, 0
        if message.missing and self._standing.mode != SYNC:
            # Some were stored since they were listed.
            return [Run(LANE, CompareJob(self._on_compared, message.missing))]
        return self._next_page(len(listed.entries), now)

    def _on_compared(self, done: CompareDone, now: float) -> list[Effect]:
        effects = self._missing(done.missing, now) if done.missing else []
        return effects + self._next_page(len(done.missing), now)

    def _next_page(self, entries: int, now: float) -> list[Effect]:
        if self._bucket >= BUCKETS and not self._ordered_anew:
            return self._end_step(now + self._interval_s)
        return self._end_step(now + PAUSE_S + entries * ENTRY_PAUSE_S)

    def _end_step(self, due_at: float) -> list[Effect]:
        self._in_step = False
        self._due_at = due_at
        return []
