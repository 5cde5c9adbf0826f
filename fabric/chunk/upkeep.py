"""When the background lane does what: scrub and compaction, each within its bandwidth, and disk checks.

One slice is under way at a time.  What it cost moves the time of the next slice of its kind on, so that over
any while the bytes stay within the rate; a kind with nothing to do looks again after a pause.  When both are
due, the one that has waited longer goes first.  Steps that must follow a slice run at once.

What an operator asks for waits for no pause, but for the bandwidth: however often it is asked for, the rate
holds.  A check of the disk goes before the next slice, and runs at most once in ``CHECK_PAUSE_S``.
"""

from __future__ import annotations

import msgspec

from fabric.chunk.jobs import (
    CheckDiskJob,
    CompactDone,
    CompactionStatus,
    CompactJob,
    DiskChecked,
    ScrubDone,
    ScrubJob,
    ScrubStatus,
)
from fabric.node.effects import Effect, Run
from fabric.settings import KIB, Settings
from fabric.wire.messages import DiskCheck

LANE = "background"
SCRUB_SLICE_BYTES = 1024 * KIB
COMPACTION_SLICE_BYTES = 128 * KIB
"""Small enough that a slice holds up neither a reader nor the disk."""
SCRUB_IDLE_S = 60.0
COMPACTION_IDLE_S = 10.0
"""Pauses before looking again for something to do."""
CHECK_PAUSE_S = 1.0
"""Between two checks of the disk, however often they are asked for."""


class _Kind(msgspec.Struct):
    """Scrub, or compaction."""

    bytes_per_s: int
    due_at: float = 0.0
    paid_at: float = 0.0
    """When the rate has made up for the last slice: none begins before."""
    ordered: bool = False
    """An operator wants it now."""
    served: bool = False
    """The slice under way was begun on an operator's order."""

    def order(self, now: float) -> None:
        """Wait for no pause."""
        self.ordered = True
        self.due_at = min(self.due_at, max(now, self.paid_at))

    def finish(self, began_at: float, now: float, cost_bytes: int, pause_s: float) -> None:
        """A slice that began at ``began_at`` has cost so much; the next one is due after a pause."""
        self.paid_at = began_at + cost_bytes / self.bytes_per_s
        self.due_at = max(now + pause_s, self.paid_at)


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
        self._check_at: float | None = None
        """When the check of the disk that was asked for begins; None: none was, or it is under way."""
        self._is_checking = False
        self._checked_at = float("-inf")
        self._disk = DiskCheck()
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
        self._scrub.order(now)

    def compact_now(self, now: float) -> None:
        """Give back all garbage there is, however little of a file it is."""
        self._compaction.order(now)

    def check_disk_now(self, now: float) -> None:
        """Try the disk.  Whoever asks while that is to come or under way asks for the same one."""
        if self._check_at is None and not self._is_checking:
            self._check_at = max(now, self._checked_at + CHECK_PAUSE_S)

    @property
    def disk(self) -> DiskCheck:
        """The last check; ``running`` while another was asked for and is not done."""
        return msgspec.structs.replace(self._disk, running=self._check_at is not None or self._is_checking)

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
        if self._check_at is not None and self._check_at <= now:
            self._check_at = None
            self._is_checking = True
            return [Run(LANE, CheckDiskJob())]
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
        if not self._started or self._under_way is not None or self._is_checking:
            return None
        due_at = min(self._scrub.due_at, self._compaction.due_at)
        return due_at if self._check_at is None else min(due_at, self._check_at)

    def on_scrubbed(self, done: ScrubDone, now: float) -> list[Effect]:
        """A slice, or the step that followed it, is done."""
        self.scrub = done.scrub
        self._cost_bytes += done.cost_bytes
        if done.follow is not None:
            return [Run(done.follow.lane, done.follow)]
        self._under_way = None
        self._scrub.served = False
        pause_s = SCRUB_IDLE_S if done.idle and not self._scrub.ordered else 0.0
        self._scrub.finish(self._began_at, now, self._cost_bytes, pause_s)
        return self.on_tick(now)

    def on_compacted(self, done: CompactDone, now: float) -> list[Effect]:
        """A slice, or a step that followed it, is done."""
        self.compaction = done.compaction
        self._cost_bytes += done.cost_bytes
        if done.follow is not None:
            return [Run(done.follow.lane, done.follow)]
        self._under_way = None
        # Asked for while this slice was under way, which did not look for all garbage: another must.
        is_missed = self._compaction.ordered and not self._compaction.served
        pause_s = 0.0
        if done.idle and not is_missed:
            self._compaction.ordered = False
            pause_s = COMPACTION_IDLE_S
        self._compaction.finish(self._began_at, now, self._cost_bytes, pause_s)
        return self.on_tick(now)

    def on_disk_checked(self, done: DiskChecked, now: float) -> list[Effect]:
        """The disk was tried."""
        self._disk = done.check
        self._is_checking = False
        self._checked_at = now
        return self.on_tick(now)
