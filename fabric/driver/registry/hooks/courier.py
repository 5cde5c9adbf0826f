"""Delivers what waits for one hook: a step at a time, decided here, with the world passed in.

At any moment one registry process delivers for a hook, whoever holds its lease (``schedule``); so events
of a repository arrive in the order of their commits, also when several processes commit them.  Of each
step the outcome is written before the next:

- A 2xx answer: the entries go and the account grows, in one commit.  A process that dies between the answer
  and the commit leaves the entries to its successor, which sends them again under the same ids.
- Anything else: they stay, the next try comes later and with fewer of them, and what has waited for longer
  than the hook wants goes, and is counted.

When nothing waits nobody holds the lease, so that whoever commits next delivers at once.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.hooks.envelope import Event, events_of
from fabric.driver.registry.hooks.outbox import entry_of, outbox_prefix, written_ms
from fabric.driver.registry.hooks.schedule import (
    ERROR_CHARACTERS_MAX,
    LEASE_MARGIN_S,
    State,
    batch_max,
    delay_s,
    read_state,
    state_step,
)
from fabric.driver.registry.hooks.wishes import Wish
from fabric.errors import Precondition
from fabric.wire.messages import AnyOperation, DeleteOperation, ObjectInfo

ENTRIES_MAX = 32
"""In one request."""

_EXPIRED_MAX = 50
"""Entries given up in one commit; a page of them, with their events, has to fit a message."""

POLL_S = 10.0
"""From one look for what dead processes have left to the next."""

_RIVAL_S_MIN = 0.05
_RIVAL_S_MAX = 1.0
"""Between two looks while another process delivers: it may end just before it sees our entry."""

Send = Callable[[Sequence[Event]], Awaitable[str]]
"""Sends events in one request; an empty text when the receiver has them, else what went wrong."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """What a courier knows of the world."""

    monotonic_s: Callable[[], float]
    wall_ms: Callable[[], int]
    rng: random.Random


@dataclass(frozen=True, slots=True)
class _Lease:
    """Of ours: the state that we wrote last, and its generation."""

    state: State
    generation: int


class Courier:
    """One hook's, in one process.  ``step`` is called again and again, by one task."""

    def __init__(
        self,
        store: ObjectStore,
        wish: Wish,
        registry_url: str,
        send: Send,
        timeout_s: float,
        me: str,
        clocks: Clocks,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store = store
        self._wish = wish
        self._registry_url = registry_url
        self._send = send
        self._lease_s = timeout_s + LEASE_MARGIN_S
        self._me = me
        self._clocks = clocks
        self._warn = warn
        self._lease: _Lease | None = None
        self._not_before_s = 0.0
        self._seen = (0, 0.0)
        """The generation of another's lease, and since when we see it."""
        self._rival_s = _RIVAL_S_MIN

    async def step(self) -> float:
        """Do what can be done now; returns seconds until the next step, if nothing calls for it earlier.

        Raises FabricError of the store: nothing is lost then, the next step begins anew.
        """
        wait_s = self._not_before_s - self._clocks.monotonic_s()
        if wait_s > 0:
            return min(wait_s, POLL_S)
        prefix = outbox_prefix(self._wish.name)
        if self._lease is None and not (await self._store.list(prefix, limit=1)).objects:
            self._rival_s = _RIVAL_S_MIN
            return POLL_S
        try:
            wait_s = await self._take()
            if wait_s > 0:
                return wait_s
            # Looked at under the lease: what another has delivered is not there any more.
            page = await self._store.list(prefix, limit=ENTRIES_MAX)
            if not page.objects:
                await self.release()
                return POLL_S
            # By generation is the order of commits; the names are the order of several machines' clocks.
            entries = sorted(page.objects, key=lambda info: info.generation)
            return await self._deliver(entries, more=bool(page.next))
        except Precondition:
            self._lease = None  # another has taken over
            return self._rival_s

    # --- the lease --------------------------------------------------------------------------------

    async def _take(self) -> float:
        """Have the lease, or return how long to wait for another's.  Raises Precondition for a rival."""
        if self._lease is not None:
            await self._write(self._lease.state, self._lease.generation, [])
            return 0.0
        state, generation = await read_state(self._store, self._wish.name)
        now_s = self._clocks.monotonic_s()
        if state.holder not in ("", self._me):
            if self._seen[0] != generation:
                self._seen = (generation, now_s)
            left_s = self._seen[1] + state.lease_s - now_s
            if left_s > 0:
                self._rival_s = min(2 * self._rival_s, _RIVAL_S_MAX)
                return min(left_s, POLL_S if state.failures else self._rival_s)
        self._rival_s = _RIVAL_S_MIN
        held = msgspec.structs.replace(state, holder=self._me, lease_s=self._lease_s)
        await self._write(held, generation, [])
        return 0.0

    async def _write(self, state: State, generation: int, steps: Sequence[AnyOperation]) -> None:
        """Change the state, together with ``steps``.  Raises Precondition."""
        changed = (await self._store.commit([state_step(self._wish.name, state, generation), *steps]))[0]
        assert changed is not None
        self._lease = _Lease(state, changed.generation) if state.holder else None

    async def release(self) -> None:
        """Let others deliver, if it was ours to do.  Raises FabricError of the store."""
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        free = msgspec.structs.replace(lease.state, holder="", lease_s=0.0)
        try:
            await self._write(free, lease.generation, [])
        except Precondition:
            return  # another has taken over

    # --- deliveries -------------------------------------------------------------------------------

    async def _deliver(self, entries: Sequence[ObjectInfo], *, more: bool) -> float:
        assert self._lease is not None
        failures = self._lease.state.failures
        batch = entries[: batch_max(failures, ENTRIES_MAX)]
        events = [event for info in batch for event in events_of(entry_of(info), self._registry_url)]
        error = await self._send(events)
        if error:
            return await self._failed(error)
        is_last = len(batch) == len(entries) and not more
        await self._acknowledged(batch, len(events), is_last=is_last)
        return 0.0

    async def _acknowledged(self, batch: Sequence[ObjectInfo], count: int, *, is_last: bool) -> None:
        """Forget what has arrived; give the lease back with the last of it."""
        assert self._lease is not None
        state = msgspec.structs.replace(
            self._lease.state,
            holder="" if is_last else self._me,
            failures=0,
            delivered=self._lease.state.delivered + count,
            last_success_ms=self._clocks.wall_ms(),
            last_error="",
        )
        steps: list[AnyOperation] = [DeleteOperation(info.path, missing_ok=True) for info in batch]
        try:
            await self._write(state, self._lease.generation, steps)
        except Precondition:
            # It took us so long that another took over.  What has arrived need not be sent once more.
            await self._store.commit(steps)
            raise

    async def _failed(self, error: str) -> float:
        assert self._lease is not None
        wall_ms = self._clocks.wall_ms()
        failures = self._lease.state.failures + 1
        delay = delay_s(failures, self._clocks.rng)
        if failures == 1:
            self._warn(f"hook {self._wish.name}: {error}; what waits is kept, and tried again")
        state = msgspec.structs.replace(
            self._lease.state,
            holder=self._me,
            lease_s=delay + self._lease_s,
            failures=failures,
            last_error_ms=wall_ms,
            last_error=error[:ERROR_CHARACTERS_MAX],
        )
        await self._write(state, self._lease.generation, [])
        self._not_before_s = self._clocks.monotonic_s() + delay
        await self._drop_expired(wall_ms)
        return min(delay, POLL_S)

    async def _drop_expired(self, wall_ms: int) -> None:
        """Give up what has waited for too long, oldest first."""
        before_ms = wall_ms - int(self._wish.retry_for_s * 1000)
        while True:
            page = await self._store.list(outbox_prefix(self._wish.name), limit=ENTRIES_MAX)
            expired = [info for info in page.objects if written_ms(info.path) < before_ms]
            if not expired:
                return
            assert self._lease is not None
            state = self._lease.state
            count = sum(len(events_of(entry_of(info), "")) for info in expired)
            steps = [DeleteOperation(info.path, missing_ok=True) for info in expired]
            counted = msgspec.structs.replace(state, dropped=state.dropped + count)
            await self._write(counted, self._lease.generation, steps)
            self._warn(f"hook {self._wish.name}: {count} events were given up after {state.failures} tries")


async def drop_orphans(
    store: ObjectStore, hook: str, before_ms: int, warn: Callable[[str], None] = lambda text: None
) -> None:
    """Give up what waits since before then for a hook that nobody delivers for any more."""
    page = await store.list(outbox_prefix(hook), limit=_EXPIRED_MAX)
    expired = [info.path for info in page.objects if written_ms(info.path) < before_ms]
    if expired:
        await store.commit([DeleteOperation(path, missing_ok=True) for path in expired])
        warn(f"hook {hook}: {len(expired)} entries were given up, since no registry delivers for it")
