"""Events of pulls: kept in memory, never waited for, lost with the process.

A pull changes nothing, so there is no commit to put its event into, and a commit for each pull would make
pulls slow.  So they are told as well as can be: a bounded queue, tries for a few minutes, and an account,
``hooks/<name>/pulls``, of what arrived and what was dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.hooks.courier import ENTRIES_MAX, POLL_S, Clocks, Send
from fabric.driver.registry.hooks.decoding import decoded
from fabric.driver.registry.hooks.envelope import events_of
from fabric.driver.registry.hooks.outbox import Entry
from fabric.driver.registry.hooks.schedule import batch_max, delay_s
from fabric.errors import NotFound, Precondition

PULLS_MAX = 1000
"""Events that wait in one process for one hook; beyond that they are dropped."""

KEEP_S = 300.0
"""An event that has waited for so long is dropped."""

_ACCOUNT = "account"


class Account(msgspec.Struct, frozen=True):
    """What became of pulls' events, of all processes together."""

    delivered: int = 0
    dropped: int = 0

    def plus(self, other: Account) -> Account:
        """Both together."""
        return Account(self.delivered + other.delivered, self.dropped + other.dropped)


def account_path(hook: str) -> str:
    """Where the account of a hook's pulls is."""
    return f"hooks/{hook}/pulls"


async def read_account(store: ObjectStore, hook: str) -> tuple[Account, int]:
    """The account and its generation; an empty one and 0 where there is none."""
    try:
        info = await store.stat(account_path(hook))
    except NotFound:
        return Account(), 0
    return decoded(info.attributes[_ACCOUNT], Account, info.path), info.generation


class Pulls:
    """One hook's, in one process."""

    def __init__(
        self,
        store: ObjectStore,
        hook: str,
        registry_url: str,
        send: Send,
        clocks: Clocks,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store = store
        self._hook = hook
        self._registry_url = registry_url
        self._send = send
        self._clocks = clocks
        self._warn = warn
        self._waiting: deque[tuple[float, Entry]] = deque()
        self._failures = 0
        self._not_before_s = 0.0
        self._unwritten = Account()
        self._written_s = clocks.monotonic_s()

    def offer(self, entry: Entry) -> None:
        """Take an event, or drop it when too many wait.  At once, in any case."""
        if len(self._waiting) >= PULLS_MAX:
            self._drop(1)
        else:
            self._waiting.append((self._clocks.monotonic_s(), entry))

    def _drop(self, count: int) -> None:
        if self._unwritten.dropped == 0:
            self._warn(f"hook {self._hook}: events of pulls are dropped; more wait than it takes")
        self._unwritten = self._unwritten.plus(Account(dropped=count))

    async def step(self) -> float:
        """Do what can be done now; returns seconds until the next step, if nothing calls for it earlier.

        Raises FabricError when the account cannot be written; it will be written later.
        """
        now_s = self._clocks.monotonic_s()
        if self._unwritten != Account() and now_s - self._written_s >= POLL_S:
            self._written_s = now_s
            await self._write_account()
        if now_s < self._not_before_s:
            return min(self._not_before_s - now_s, POLL_S)
        if not self._waiting:
            return POLL_S
        count = min(len(self._waiting), batch_max(self._failures, ENTRIES_MAX))
        entries = [entry for _, entry in islice(self._waiting, count)]
        error = await self._send([each for entry in entries for each in events_of(entry, self._registry_url)])
        if error:
            return self._failed()
        for _ in range(count):
            self._waiting.popleft()  # new ones came at the other end only
        self._unwritten = self._unwritten.plus(Account(delivered=count))
        self._failures = 0
        return 0.0

    def _failed(self) -> float:
        self._failures += 1
        delay = delay_s(self._failures, self._clocks.rng)
        now_s = self._clocks.monotonic_s()
        while self._waiting and now_s - self._waiting[0][0] > KEEP_S:
            self._waiting.popleft()
            self._drop(1)
        self._not_before_s = now_s + delay
        return min(delay, POLL_S)

    async def _write_account(self) -> None:
        account, generation = await read_account(self._store, self._hook)
        counted = self._unwritten
        text = msgspec.json.encode(account.plus(counted)).decode()
        try:
            await self._store.put(
                account_path(self._hook), b"", attributes={_ACCOUNT: text}, if_generation=generation
            )
        except Precondition:
            return  # another process writes its own now; ours is added next time
        now = self._unwritten
        self._unwritten = Account(now.delivered - counted.delivered, now.dropped - counted.dropped)

    async def end(self) -> None:
        """Write the account once more; what still waits is dropped.  Raises FabricError of the store."""
        if self._waiting:
            self._drop(len(self._waiting))
            self._waiting.clear()
        if self._unwritten != Account():
            await self._write_account()
