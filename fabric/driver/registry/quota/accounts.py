"""Accounts, kept where an ownership is made or ended: at the commit.

Whatever makes a repository own bytes, or ends that (a push, a mount, a restoration, a pass of garbage
collection, an operator's command), ends in a commit that puts or deletes an entry ``owners/…``.
``AccountedStore`` adds to just these commits the steps that keep the accounts, so that both hold or
neither: there is no moment, and no crash, at which the figures are not exact.

- The commit demands the generation of the book of quotas by which it was decided.  So once a quota
  is written, no process can change an ownership without counting it, whatever it knew before.
- It demands the owner's entry, the held digest and the total as they were seen.  When it fails, all that
  was seen is looked at again: if any of it has changed it is tried anew, otherwise the caller's own
  conditions did not hold, and the caller is told.
- A total that was seen before is remembered, since this process writes most of its changes itself.  A
  refusal is never given on a memory: everything is seen anew before, and the total first.

Commits that change no ownership pass as they are.  Those of repositories without a quota get one step
more, the check of the book.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.errors import RegistryError, quota_exceeded
from fabric.driver.registry.names import Digest, blob_path
from fabric.driver.registry.quota.accounting import (
    OWNERS_PREFIX,
    Change,
    Difference,
    Plan,
    changes_of,
    excess,
    holding_of,
    is_counted_by,
)
from fabric.driver.registry.quota.book import (
    BOOK_PATH,
    Account,
    Book,
    Figures,
    figures_of,
    held_path,
    read_book,
    read_figures,
)
from fabric.driver.registry.store_layer import StoreLayer
from fabric.errors import NotFound, Precondition, Unavailable
from fabric.settings import OPERATIONS_MAX
from fabric.wire.messages import AnyOperation, ObjectInfo

_PLANS_MAX = 25
_TRIES_OF_A_PLAN_MAX = 8
"""One account's total is changed by one commit at a time; of several that try, one goes on each time."""

Turns = Callable[[Sequence[str]], AbstractAsyncContextManager[object]]
"""Gives the commits of one process that change the same totals their turns; for speed, not for safety."""


def no_turns(accounts: Sequence[str]) -> AbstractAsyncContextManager[object]:
    """Everybody at once; those who were slower try again."""
    return nullcontext()


class Memory:
    """What a process remembers of the accounts; shared by its views of the store."""

    def __init__(self, turns: Turns = no_turns) -> None:
        self.turns = turns
        self.book: Book | None = None
        self.totals: dict[str, Figures] = {}


class AccountedStore(StoreLayer):
    """An ``ObjectStore`` whose commits keep the accounts.

    A commit that would take an account beyond its limit raises RegistryError DENIED, with nothing
    changed, where ``refuses`` says so; the registry's own work and an operator's never asks for more.
    """

    def __init__(self, store: ObjectStore, memory: Memory | None = None, *, refuses: bool = True) -> None:
        super().__init__(store)
        self._memory = memory if memory is not None else Memory()
        self._refuses = refuses

    def without_refusals(self) -> AccountedStore:
        """The same store and memory, for work that is counted and never refused."""
        return AccountedStore(self._store, self._memory, refuses=False)

    # --- commits ------------------------------------------------------------------------------------

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        """As the store's, with the accounts of the ownerships that it changes."""
        changes = changes_of(operations)
        if not changes:
            return await self._store.commit(operations)
        for _ in range(_PLANS_MAX):
            plan = await self._plan(changes)
            for _ in range(_TRIES_OF_A_PLAN_MAX):
                try:
                    return await self._try(plan, operations)
                except (NotFound, Precondition):
                    if await self._have_totals_moved(plan):
                        continue  # and it is likely that nothing else has
                    if await self._has_moved(plan):
                        break
                    raise
        raise Unavailable("what repositories own is changed by others again and again")

    async def _try(self, plan: Plan, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        differences = plan.differences()
        async with self._memory.turns([each.account.id for each in differences]):
            plan.figures = await self._figures(plan, differences)
            before, after = plan.conditions(), plan.results()
            steps = [*before, *map(plan.marked, operations), *after]
            assert len(steps) <= OPERATIONS_MAX, "callers leave room: accounting.room_of"
            results = await self._store.commit(steps)
            for each, info in zip(reversed(differences), reversed(results), strict=False):
                assert info is not None, "the totals are the last steps"
                self._memory.totals[each.account.id] = figures_of(info)
        return results[len(before) : len(before) + len(operations)]

    async def _plan(self, changes: Sequence[Change]) -> Plan:
        """Look at everything that the commit depends on, but for the totals."""
        book = await self._book()
        plan = Plan(book, {change.ownership.path: change for change in changes})
        for change in changes:
            account = book.account_of(change.ownership.name)
            if account is not None:
                await self._plan_one(plan, account, change)
        return plan

    async def _plan_one(self, plan: Plan, account: Account, change: Change) -> None:
        owned = change.ownership
        entry = await self._look(plan, owned.path)
        if is_counted_by(entry, account) == change.is_owned:
            return  # it is counted and stays so, or it is not
        path = held_path(account.id, owned.digest)
        if path not in plan.holdings:
            held = await self._look(plan, path)
            size = await self._size(change) if held is None and change.is_owned else 0
            plan.holdings[path] = holding_of(account.id, owned.digest, held, size)
        plan.holdings[path].links += 1 if change.is_owned else -1

    async def _size(self, change: Change) -> int:
        if change.size is not None:
            return change.size
        found = await self._find(blob_path(change.ownership.digest))
        return 0 if found is None else found.size  # an entry of bytes that were lost costs nothing

    async def _figures(self, plan: Plan, differences: Sequence[Difference]) -> dict[str, Figures]:
        """The totals before.  Raises RegistryError DENIED; Precondition when the plan does not hold."""
        figures = {each.account.id: await self._total(each.account.id) for each in differences}
        if not self._refuses or not any(excess(each, figures[each.account.id]) for each in differences):
            return figures
        # Nothing is refused on a memory: first the totals as they are, then all the rest.
        figures = {account: await self._read_total(account) for account in figures}
        if await self._has_moved(plan):
            raise Precondition("what a refusal would rest on has changed")
        for each in differences:
            before = figures[each.account.id]
            if excess(each, before):
                account = each.account
                raise quota_exceeded(account.repositories, account.limit_bytes, before.bytes, each.bytes)
        return figures

    async def _have_totals_moved(self, plan: Plan) -> bool:
        fresh = {account: await self._read_total(account) for account in plan.figures}
        return fresh != plan.figures

    async def _has_moved(self, plan: Plan) -> bool:
        """Whether anything else that was seen is no longer so."""
        book = await self._find(BOOK_PATH)
        if plan.book.generation != (0 if book is None else book.generation):
            self._memory.book = None
            return True
        for path, generation in plan.seen.items():
            info = await self._find(path)
            if generation != (0 if info is None else info.generation):
                return True
        return False

    # --- what is known ------------------------------------------------------------------------------

    async def book(self) -> Book:
        """The book as it is now."""
        self._memory.book = await read_book(self._store)
        return self._memory.book

    async def _book(self) -> Book:
        return self._memory.book if self._memory.book is not None else await self.book()

    async def _total(self, account: str) -> Figures:
        known = self._memory.totals.get(account)
        return known if known is not None else await self._read_total(account)

    async def _read_total(self, account: str) -> Figures:
        figures = await read_figures(self._store, account)
        self._memory.totals[account] = figures
        return figures

    async def _look(self, plan: Plan, path: str) -> ObjectInfo | None:
        info = await self._find(path)
        plan.seen[path] = 0 if info is None else info.generation
        return info

    async def _find(self, path: str) -> ObjectInfo | None:
        try:
            return await self._store.stat(path)
        except NotFound:
            return None

    # --- before there is a commit ---------------------------------------------------------------------

    async def check_room(self, name: str, size: int, digest: Digest | None = None) -> None:
        """Refuse an upload of so many bytes that cannot end well.  Raises RegistryError DENIED.

        What an account holds already takes no room.  Whether it does is known by the digest; without one
        only that is refused which is larger than the limit, and than all that is held.
        """
        if await self._lack(name, size, digest) is None:
            return
        self._memory.book = None
        self._memory.totals.clear()
        refusal = await self._lack(name, size, digest)
        if refusal is not None:
            raise refusal

    async def _lack(self, name: str, size: int, digest: Digest | None) -> RegistryError | None:
        account = (await self._book()).account_of(name)
        if account is None or not account.is_counted:
            return None
        used = (await self._total(account.id)).bytes
        if size <= (max(account.limit_bytes, used) if digest is None else account.limit_bytes - used):
            return None
        if digest is not None and await self._find(held_path(account.id, digest)) is not None:
            return None
        return quota_exceeded(account.repositories, account.limit_bytes, used, size)

    def _check_put(self, path: str) -> None:
        assert not path.startswith(OWNERS_PREFIX), "ownerships are changed by commits"
