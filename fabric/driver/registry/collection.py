"""One pass of garbage collection: its rules, its tools, and what it reports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.bookkeeping import Stamper
from fabric.driver.registry.quota.accounting import STEPS_PER_COMMIT, room_of
from fabric.errors import NotFound, Precondition
from fabric.settings import OPERATIONS_MAX, Settings
from fabric.wire.messages import AnyOperation, AppendOperation, CheckOperation, DeleteOperation, ObjectInfo

Pause = Callable[[], Awaitable[None]]
"""Awaited between two steps, so that garbage collection leaves room for others."""


class Decision(NamedTuple):
    """What is to be done about one mark."""

    steps: list[AnyOperation]
    """All of them or none."""
    counts: str = ""
    """The field of the report that counts it; empty: none."""
    amount: int = 1
    freed_bytes: int = 0


Gather = Callable[[Sequence[Coroutine[Any, Any, Decision | None]]], Awaitable[Sequence[Decision | None]]]
"""Runs coroutines that do not depend on each other, side by side or one by one; their results in order."""


class Pace(NamedTuple):
    """How a pass shares the world with others; given by whoever has an event loop."""

    pause: Pause
    gather: Gather


TOGETHER = 32
"""Marks that are looked at side by side and settled in one commit, each with few steps."""

COLLECTOR = "garbage collection"
"""Who moved an untagged manifest to the trash."""

PROBLEMS_MAX = 10
PROBLEM_CHARACTERS_MAX = 200


class Policy(msgspec.Struct, frozen=True):
    """What is garbage, and when.  Times in seconds."""

    grace_s: float
    """A blob that no manifest references stays so long, twice: see ``loose``."""
    undelete_s: float
    """What was deleted or overwritten can be restored for so long."""
    untagged_after_s: float
    """A manifest that nothing names is deleted after this; negative: never."""
    upload_idle_s: float
    """An upload that does not grow for so long is discarded."""


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings say."""
    return Policy(
        settings.gc_grace_s, settings.undelete_s, settings.gc_untagged_after_s, settings.upload_expiry_s
    )


class Report(msgspec.Struct):
    """What a pass did, or would do."""

    started_at_ms: int
    """Wall clock, milliseconds since 1970."""
    ended_at_ms: int = 0
    dry_run: bool = False
    freed: int = 0
    """Blobs and manifests whose bytes were given back."""
    freed_bytes: int = 0
    doubted_blobs: int = 0
    """No manifest has referenced them for long: clients are told to upload them again."""
    unlinked_blobs: int = 0
    """Links that ended, because no manifest referenced the blob for long enough."""
    trashed_manifests: int = 0
    """Untagged manifests that were moved to the trash."""
    purged_manifests: int = 0
    """Trash that can no longer be restored."""
    purged_blobs: int = 0
    purged_tag_states: int = 0
    """Entries of tags' histories that can no longer be restored."""
    discarded_uploads: int = 0
    discarded_parts: int = 0
    """Parts whose upload is over."""
    released_pushes: int = 0
    """Large manifests whose push never ended."""
    removed_repositories: int = 0
    """Names of repositories that have nothing any more."""
    changed_meanwhile: int = 0
    """Decisions given up because somebody was faster; the next pass looks again."""
    kept: dict[str, int] = {}
    """How much was looked at and kept, by reason."""
    problems: list[str] = []

    def keep(self, reason: str) -> None:
        """Count something that stays."""
        self.kept[reason] = self.kept.get(reason, 0) + 1

    def problem(self, text: str) -> None:
        """Note what an operator should see."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text[:PROBLEM_CHARACTERS_MAX])


class Run:
    """What every part of a pass works with."""

    def __init__(
        self,
        store: ObjectStore,
        stamper: Stamper,
        policy: Policy,
        manifest_bytes_max: int,
        pace: Pace,
        *,
        dry_run: bool = False,
    ) -> None:
        self.store = store
        self.stamper = stamper
        self.policy = policy
        self.manifest_bytes_max = manifest_bytes_max
        self.pace = pace
        self.dry_run = dry_run
        self.now_ms = stamper.wall_ms()
        self.report = Report(started_at_ms=self.now_ms, dry_run=dry_run, kept={}, problems=[])

    def before_ms(self, age_s: float) -> int:
        """The time so long ago."""
        return self.now_ms - int(age_s * 1000)

    async def attempt(self, steps: Sequence[AnyOperation]) -> bool:
        """Commit; False when anything has changed since it was looked at.  A dry run says True."""
        if self.dry_run:
            return True
        try:
            await self.store.commit(steps)
        except (Precondition, NotFound):
            self.report.changed_meanwhile += 1
            return False
        return True

    async def settle(self, decisions: Sequence[Decision | None]) -> None:
        """Act on all that were decided: in few commits or, when one of those fails, in one for each."""
        room_max = OPERATIONS_MAX - STEPS_PER_COMMIT
        room, together = room_max, list[Decision]()
        for decision in filter(None, decisions):
            if room_of(decision.steps) > room:
                await self._settle_together(together)
                room, together = room_max, []
            together.append(decision)
            room -= room_of(decision.steps)
        await self._settle_together(together)

    async def _settle_together(self, decisions: Sequence[Decision]) -> None:
        if len(decisions) > 1 and await self.attempt([step for each in decisions for step in each.steps]):
            done = decisions
        else:
            done = [each for each in decisions if await self.attempt(each.steps)]
        for each in done:
            if each.counts:
                setattr(self.report, each.counts, getattr(self.report, each.counts) + each.amount)
            self.report.freed_bytes += each.freed_bytes

    async def look_at(
        self, prefix: str, decide: Callable[[ObjectInfo], Coroutine[Any, Any, Decision | None]]
    ) -> None:
        """Decide on every mark below a prefix, and act."""
        batch: list[ObjectInfo] = []
        async for info in self.entries(prefix):
            batch.append(info)
            if len(batch) == TOGETHER:
                await self.settle(await self.pace.gather([decide(each) for each in batch]))
                await self.pace.pause()
                batch = []
        await self.settle(await self.pace.gather([decide(each) for each in batch]))

    async def drop(self, mark: ObjectInfo) -> None:
        """A mark whose reason has gone."""
        await self.attempt(dropping(mark).steps)

    async def claim(self, found: ObjectInfo) -> ObjectInfo | None:
        """Raise an object's generation, so that nobody else who saw it can go on; None when it changed."""
        if self.dry_run:
            return found
        steps: list[AnyOperation] = [
            CheckOperation(found.path, found.generation),
            AppendOperation(found.path, [], found.size),
        ]
        try:
            return (await self.store.commit(steps))[1]
        except (Precondition, NotFound):
            self.report.changed_meanwhile += 1
            return None

    async def entries(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Everything below a prefix, in order."""
        after = ""
        while True:
            page = await self.store.list(prefix, after=after)
            for info in page.objects:
                yield info
            after = page.next
            if not after:
                return

    async def find(self, path: str) -> ObjectInfo | None:
        """What is at ``path``; None when nothing is."""
        try:
            return await self.store.stat(path)
        except NotFound:
            return None

    async def has_any(self, prefix: str) -> bool:
        """Whether there is anything below a prefix."""
        return bool((await self.store.list(prefix, limit=1)).objects)


def dropping(mark: ObjectInfo) -> Decision:
    """A mark whose reason has gone, unless it was set again since it was seen."""
    return Decision([DeleteOperation(mark.path, if_generation=mark.generation)])
