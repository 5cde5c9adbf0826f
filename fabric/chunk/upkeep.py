"""When the background lane does what: scrub and compaction, each within its bandwidth.

One slice is under way at a time.  What it cost moves the time of the next slice of its kind on, so that over
any while the bytes stay within the rate; a kind with nothing to do looks again after a pause.  When both are
due, the one that has waited longer goes first.  Steps that must follow a slice run at once.

What an operator asks for begins at once, and keeps to the same rate.
"""

from __future__ import annotations

import msgspec

from fabric.chunk.jobs import (
    CompactDone,
    CompactionStatus,
    CompactJob,
    ScrubDone,
    ScrubJob,
    ScrubStatus,
)
from fabric.node.effects import Effect, Run
from fabric.settings import KIB, Settings

LANE = "background"
SCRUB_SLICE_BYTES = 1024 * KIB
COMPACTION_SLICE_BYTES = 128 * KIB
"""Small enough that a slice holds up neither a reader nor the disk."""
SCRUB_IDLE_S = 60.0
COMPACTION_IDLE_S = 10.0
"""Pauses before looking again for something to do."""


class _Kind(msgspec.Struct):
    """Scrub, or compaction."""

    bytes_per_s: int
    due_at: float = 0.0
    ordered: bool = False
    """An operator wants it now."""
    served: bool = False
    """The slice under way was begun on an operator's order."""

    def charge(self, began_at: float, now: float, cost_bytes: int) -> None:
        """A slice that began at ``began_at`` has cost so much."""
        self.due_at = max(now, began_at + cost_bytes / self.bytes_per_s)


class Upkeep:
    """Decides what runs next on the background lane."""

    def __init__(self, settings: Settings) -> None:
        self._scrub = _Kind(settings.scrub_bytes_per_s)
        self._compaction = _Kind(settings.compaction_bytes_per_s)
        self._under_way: _Kind | None = None
        self._last: _Kind | None = None
        self._began_at = 0.0
        self._cost_bytes = 0
        """Of the slice under way and the steps that follow it."""
        self._started = False
        self.scrub = ScrubStatus()
        """As of the last slice."""
        self.compaction = CompactionStatus()
        """As of the last slice."""

    def start(self, now: float) -> None:
        """The engine is open: begin."""
        if not self._started:
            self._started = True
            self._scrub.due_at = self._compaction.due_at = now

    def scrub_now(self, now: float) -> None:
        """Begin a new pass."""
        self._order(self._scrub, now)

    def compact_now(self, now: float) -> None:
        """Give back all garbage there is, however little of a file it is."""
        self._order(self._compaction, now)

    @property
    def is_scrub_ordered(self) -> bool:
        """A pass was asked for, and ``scrub`` does not show its beginning yet."""
        return self._scrub.ordered or self._scrub.served

    @property
    def is_compaction_ordered(self) -> bool:
        """Compaction was asked for, and is not done."""
        return self._compaction.ordered

    def on_tick(self, now: float) -> list[Effect]:
        """Run the next slice if one is due."""
        due_at = self.next_deadline()
        if due_at is None or now < due_at:
            return []
        self._began_at = now
        self._cost_bytes = 0
        if (self._scrub.due_at, self._last is self._scrub) < (self._compaction.due_at, True):
            kind = self._scrub
            job: object = ScrubJob(SCRUB_SLICE_BYTES, anew=kind.ordered)
        else:
            kind = self._compaction
            job = CompactJob(COMPACTION_SLICE_BYTES, all_garbage=kind.ordered)
        self._under_way = self._last = kind
        kind.served = kind.ordered
        if kind is self._scrub:
            # Whoever asks while this slice runs wants another pass.
            kind.ordered = False
        return [Run(LANE, job)]

    def next_deadline(self) -> float | None:
        """When the next slice is due; None while one is under way, and before the start."""
        if not self._started or self._under_way is not None:
            return None
        return min(self._scrub.due_at, self._compaction.due_at)

    def on_scrubbed(self, done: ScrubDone, now: float) -> list[Effect]:
        """A slice, or the step that followed it, is done."""
        self.scrub = done.scrub
        self._cost_bytes += done.cost_bytes
        if done.follow is not None:
            return [Run(done.follow.lane, done.follow)]
        self._under_way = None
        self._scrub.served = False
        if self._scrub.ordered:
            self._scrub.due_at = now
        elif done.idle:
            self._scrub.due_at = now + SCRUB_IDLE_S
        else:
            self._scrub.charge(self._began_at, now, self._cost_bytes)
        return self.on_tick(now)

    def on_compacted(self, done: CompactDone, now: float) -> list[Effect]:
        """A slice, or a step that followed it, is done."""
        self.compaction = done.compaction
        self._cost_bytes += done.cost_bytes
        if done.follow is not None:
            return [Run(done.follow.lane, done.follow)]
        self._under_way = None
        if done.idle and self._compaction.ordered and not self._compaction.served:
            # Asked for while this slice was under way, which did not look for all garbage.
            self._compaction.due_at = now
        elif done.idle:
            self._compaction.ordered = False
            self._compaction.due_at = now + COMPACTION_IDLE_S
        else:
            self._compaction.charge(self._began_at, now, self._cost_bytes)
        return self.on_tick(now)

    def _order(self, kind: _Kind, now: float) -> None:
        kind.ordered = True
        kind.due_at = min(kind.due_at, now)
