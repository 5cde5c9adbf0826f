"""Scrub and compaction keep to their rates, take turns, and never run twice at once."""

from __future__ import annotations

import random

from fabric.chunk.jobs import (
    CheckDiskJob,
    CompactDone,
    CompactFollow,
    CompactionStatus,
    CompactJob,
    DiskChecked,
    ScrubDone,
    ScrubFollow,
    ScrubJob,
    ScrubStatus,
    Status,
)
from fabric.chunk.upkeep import CHECK_PAUSE_S, COMPACTION_IDLE_S, SCRUB_IDLE_S, Upkeep
from fabric.node.effects import Effect, Run
from fabric.settings import Settings
from fabric.wire.messages import DiskCheck

RATE = 1_000_000
SETTINGS = Settings(scrub_bytes_per_s=RATE, compaction_bytes_per_s=2 * RATE)


def scrubbed(cost_bytes: int = 0, *, idle: bool = False, follow: ScrubFollow | None = None) -> ScrubDone:
    return ScrubDone(ScrubStatus(), Status(), cost_bytes, idle, follow=follow)


def compacted(cost_bytes: int = 0, *, idle: bool = False, follow: CompactFollow | None = None) -> CompactDone:
    return CompactDone(CompactionStatus(), Status(), cost_bytes, idle, follow)


def started(now: float = 0.0) -> Upkeep:
    upkeep = Upkeep(SETTINGS)
    upkeep.start(now)
    return upkeep


def job_of(effects: list[Effect]) -> object:
    (effect,) = effects
    assert isinstance(effect, Run)
    return effect.job


def test_nothing_runs_before_the_start() -> None:
    upkeep = Upkeep(SETTINGS)
    assert upkeep.next_deadline() is None
    assert upkeep.on_tick(1000.0) == []


def test_one_slice_at_a_time() -> None:
    upkeep = started()
    assert isinstance(job_of(upkeep.on_tick(0.0)), ScrubJob)
    assert upkeep.next_deadline() is None
    assert upkeep.on_tick(5.0) == []
    upkeep.scrub_now(5.0)
    upkeep.compact_now(5.0)
    assert upkeep.on_tick(5.0) == []


def test_both_kinds_keep_to_their_rates_however_long_a_slice_takes() -> None:
    rng = random.Random(1)
    upkeep = started()
    now = 0.0
    spent = {ScrubJob: 0, CompactJob: 0}
    effects = upkeep.on_tick(now)
    while now < 100.0:
        if not effects:
            due_at = upkeep.next_deadline()
            assert due_at is not None and due_at >= now
            now = due_at
            effects = upkeep.on_tick(now)
            continue
        job = job_of(effects)
        cost_bytes = rng.randrange(500_000)
        now += rng.random() * 0.02
        if isinstance(job, ScrubJob):
            spent[ScrubJob] += cost_bytes
            effects = upkeep.on_scrubbed(scrubbed(cost_bytes), now)
        else:
            spent[CompactJob] += cost_bytes
            effects = upkeep.on_compacted(compacted(cost_bytes), now)
    # At most the rate, and most of it although slices of both kinds wait for each other.
    assert 0.7 * RATE * now < spent[ScrubJob] <= RATE * now + 500_000
    assert 0.7 * 2 * RATE * now < spent[CompactJob] <= 2 * RATE * now + 500_000


def test_what_must_follow_runs_at_once_and_before_anything_else() -> None:
    upkeep = started()
    upkeep.on_tick(0.0)
    assert isinstance(job_of(upkeep.on_scrubbed(scrubbed(idle=True), 0.0)), CompactJob)
    follow = CompactFollow("write", "switch")
    assert upkeep.on_compacted(compacted(10 * RATE, follow=follow), 0.0) == [Run("write", follow)]
    assert upkeep.next_deadline() is None
    last = CompactFollow("background", "remove")
    assert upkeep.on_compacted(compacted(follow=last), 0.1) == [Run("background", last)]
    assert upkeep.on_compacted(compacted(), 0.2) == []
    # The slice before the steps had its price.
    assert upkeep.next_deadline() == 5.0
    assert isinstance(job_of(upkeep.on_tick(5.0)), CompactJob)


def test_tombstones_that_a_scrub_found_needless_are_forgotten_before_the_next_slice() -> None:
    upkeep = started()
    upkeep.on_tick(0.0)
    follow = ScrubFollow([1, 2])
    assert upkeep.on_scrubbed(scrubbed(2 * RATE, follow=follow), 0.0) == [Run("write", follow)]
    assert isinstance(job_of(upkeep.on_scrubbed(scrubbed(), 0.1)), CompactJob)
    upkeep.on_compacted(compacted(idle=True), 0.1)
    assert upkeep.next_deadline() == 2.0


def test_idle_kinds_look_again_after_a_pause() -> None:
    upkeep = started()
    upkeep.on_tick(0.0)
    upkeep.on_scrubbed(scrubbed(idle=True), 0.0)
    assert upkeep.on_compacted(compacted(idle=True), 0.0) == []
    assert upkeep.next_deadline() == min(COMPACTION_IDLE_S, SCRUB_IDLE_S)


def test_an_ordered_scrub_waits_for_no_pause_and_begins_anew_only_once() -> None:
    upkeep = started()
    upkeep.on_tick(0.0)
    upkeep.on_scrubbed(scrubbed(idle=True), 0.0)
    upkeep.on_compacted(compacted(idle=True), 0.0)
    upkeep.scrub_now(3.0)
    job = job_of(upkeep.on_tick(3.0))
    assert isinstance(job, ScrubJob) and job.anew
    upkeep.on_scrubbed(scrubbed(RATE), 3.0)
    job = job_of(upkeep.on_tick(4.0))
    assert isinstance(job, ScrubJob) and not job.anew


def test_a_scrub_ordered_during_a_slice_that_finds_nothing_follows_it() -> None:
    upkeep = started()
    upkeep.on_tick(0.0)
    upkeep.scrub_now(0.1)
    upkeep.on_scrubbed(scrubbed(idle=True), 0.2)
    job = job_of(upkeep.on_compacted(compacted(idle=True), 0.2))
    assert isinstance(job, ScrubJob) and job.anew


def test_orders_do_not_lift_the_rates_however_many_there_are() -> None:
    upkeep = started()
    now = 0.0
    spent = {ScrubJob: 0, CompactJob: 0}
    effects = upkeep.on_tick(now)
    while now < 20.0:
        upkeep.scrub_now(now)
        upkeep.compact_now(now)
        if effects:
            job = job_of(effects)
            now += 0.001
            if isinstance(job, ScrubJob):
                spent[ScrubJob] += RATE
                upkeep.scrub_now(now)  # while the slice is under way, too
                effects = upkeep.on_scrubbed(scrubbed(RATE), now)
            else:
                spent[CompactJob] += RATE
                upkeep.compact_now(now)
                effects = upkeep.on_compacted(compacted(RATE), now)
        else:
            now += 0.01
            effects = upkeep.on_tick(now)
    assert 0.9 * RATE * now < spent[ScrubJob] <= RATE * now + RATE
    assert 0.9 * 2 * RATE * now < spent[CompactJob] <= 2 * RATE * now + RATE


def test_an_ordered_compaction_goes_on_until_no_garbage_is_left() -> None:
    upkeep = started()
    upkeep.on_tick(0.0)
    upkeep.on_scrubbed(scrubbed(idle=True), 0.0)
    upkeep.on_compacted(compacted(idle=True), 0.0)
    upkeep.compact_now(1.0)
    for now in (1.0, 2.0, 3.0):
        job = job_of(upkeep.on_tick(now))
        assert isinstance(job, CompactJob) and job.all_garbage
        upkeep.on_compacted(compacted(RATE), now)
    job = job_of(upkeep.on_tick(4.0))
    upkeep.on_compacted(compacted(idle=True), 4.0)
    assert not upkeep.is_compaction_ordered
    job = job_of(upkeep.on_tick(4.0 + COMPACTION_IDLE_S))
    assert isinstance(job, CompactJob) and not job.all_garbage


def test_a_compaction_ordered_during_a_slice_that_finds_nothing_is_done_behind_it() -> None:
    upkeep = started()
    upkeep.on_tick(0.0)
    assert isinstance(job_of(upkeep.on_scrubbed(scrubbed(idle=True), 0.0)), CompactJob)
    upkeep.compact_now(0.1)
    job = job_of(upkeep.on_compacted(compacted(idle=True), 0.2))
    assert isinstance(job, CompactJob) and job.all_garbage
    assert upkeep.is_compaction_ordered
    upkeep.on_compacted(compacted(idle=True), 0.3)
    assert not upkeep.is_compaction_ordered


def test_a_scrub_is_on_order_until_its_first_slice_is_done() -> None:
    upkeep = started()
    upkeep.scrub_now(0.0)
    job = job_of(upkeep.on_tick(0.0))
    assert isinstance(job, ScrubJob) and job.anew
    assert upkeep.is_scrub_ordered
    upkeep.on_scrubbed(scrubbed(), 0.1)
    assert not upkeep.is_scrub_ordered


def checked(problem: str = "") -> DiskChecked:
    return DiskChecked(DiskCheck(checked_at_ms=7, problem=problem), Status())


def test_a_check_of_the_disk_goes_before_the_next_slice_and_alone() -> None:
    upkeep = started()
    assert isinstance(job_of(upkeep.on_tick(0.0)), ScrubJob)
    upkeep.check_disk_now(0.1)
    assert upkeep.disk == DiskCheck(running=True)
    assert upkeep.next_deadline() is None, "a slice is under way"
    assert isinstance(job_of(upkeep.on_scrubbed(scrubbed(), 0.2)), CheckDiskJob)
    assert upkeep.next_deadline() is None
    assert upkeep.on_tick(9.0) == []
    assert upkeep.disk.running
    assert isinstance(job_of(upkeep.on_disk_checked(checked("bad"), 9.0)), CompactJob)
    assert upkeep.disk == DiskCheck(checked_at_ms=7, problem="bad")


def test_a_check_needs_no_slice_to_be_due() -> None:
    upkeep = started()
    job_of(upkeep.on_tick(0.0))
    job_of(upkeep.on_scrubbed(scrubbed(idle=True), 0.0))
    assert upkeep.on_compacted(compacted(idle=True), 0.0) == []
    upkeep.check_disk_now(1.0)
    assert upkeep.next_deadline() == 1.0
    assert isinstance(job_of(upkeep.on_tick(1.0)), CheckDiskJob)


def test_checks_that_are_asked_for_together_are_one_and_the_next_comes_after_a_pause() -> None:
    upkeep = started()
    for _ in range(3):
        upkeep.check_disk_now(0.0)
    assert isinstance(job_of(upkeep.on_tick(0.0)), CheckDiskJob)
    upkeep.check_disk_now(0.5)  # joins the one under way
    following = job_of(upkeep.on_disk_checked(checked(), 1.0))
    assert isinstance(following, ScrubJob)
    assert not upkeep.disk.running
    upkeep.check_disk_now(1.1)
    assert isinstance(job_of(upkeep.on_scrubbed(scrubbed(idle=True), 1.2)), CompactJob)
    assert upkeep.on_compacted(compacted(idle=True), 1.3) == []
    assert upkeep.next_deadline() == 1.0 + CHECK_PAUSE_S
