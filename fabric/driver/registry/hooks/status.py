"""How it stands with all hooks, read from the store."""

from __future__ import annotations

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.hooks.outbox import OUTBOX_PREFIX, outbox_prefix, written_ms
from fabric.driver.registry.hooks.pulls import read_account
from fabric.driver.registry.hooks.schedule import read_state
from fabric.driver.registry.hooks.wishes import read_wishes

COUNTED_MAX = 10_000
"""Entries that are counted; a longer outbox has so many or more."""

_PAGE = 50
"""Entries have their events with them: a page of them has to fit a message."""


class HookStatus(msgspec.Struct, frozen=True):
    """Of one hook.  Times are wall clock in milliseconds, 0 for never."""

    name: str
    is_known: bool
    """Whether a registry delivers for it, or has lately."""
    waiting: int
    """Commits whose events wait."""
    waiting_is_least: bool
    """There are more than were counted."""
    oldest_ms: int
    delivered: int
    dropped: int
    failures: int
    """Tries since the last success."""
    last_success_ms: int
    last_error_ms: int
    last_error: str
    pulls_delivered: int
    pulls_dropped: int


async def hooks_status(store: ObjectStore, now_ms: int) -> list[HookStatus]:
    """Of all that registries know or something waits for, by name."""
    known = (await read_wishes(store)).in_force(now_ms)
    page = await store.list(OUTBOX_PREFIX, delimiter="/")
    waiting = {folded.removeprefix(OUTBOX_PREFIX).rstrip("/") for folded in page.prefixes}
    return [await _status(store, name, is_known=name in known) for name in sorted({*known, *waiting})]


async def _status(store: ObjectStore, name: str, *, is_known: bool) -> HookStatus:
    count, oldest_ms, after = 0, 0, ""
    while count < COUNTED_MAX:
        page = await store.list(outbox_prefix(name), after=after, limit=_PAGE)
        if page.objects and not count:
            oldest_ms = written_ms(page.objects[0].path)
        count += len(page.objects)
        after = page.next
        if not after:
            break
    state, _ = await read_state(store, name)
    pulls, _ = await read_account(store, name)
    return HookStatus(
        name, is_known, count, bool(after), oldest_ms, state.delivered, state.dropped, state.failures,
        state.last_success_ms, state.last_error_ms, state.last_error, pulls.delivered, pulls.dropped,
    )  # fmt: skip
