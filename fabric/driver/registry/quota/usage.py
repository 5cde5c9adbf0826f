"""What accounts and repositories hold, for people: also what of it others hold as well.

The totals are exact at every moment; what is shared is found by one walk over all ownerships, which are in
the order of digests, as is what an account holds.  Beside pushes its figures are those of no single moment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.names import Digest
from fabric.driver.registry.quota.accounting import OWNERS_PREFIX, Ownership, ownership_at
from fabric.driver.registry.quota.book import ACCOUNTS_PREFIX, SIZE, Account, read_book, read_figures
from fabric.driver.registry.quota.counting import entries
from fabric.wire.messages import ObjectInfo


class Usage(msgspec.Struct):
    """What is held together; each digest counts once."""

    objects: int = 0
    """Blobs and manifests, those in the trash included."""
    unique_bytes: int = 0
    """Of digests that nobody else holds."""
    shared_bytes: int = 0
    """Of digests that others hold too."""

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.unique_bytes + self.shared_bytes

    def add(self, size: int, *, is_shared: bool) -> None:
        """Count a digest."""
        self.objects += 1
        if is_shared:
            self.shared_bytes += size
        else:
            self.unique_bytes += size


class AccountUsage(msgspec.Struct):
    """An account: its limit, what counts against it, and what the walk found."""

    account: Account
    used_bytes: int
    objects: int
    found: Usage
    repositories: dict[str, Usage]
    """By name; what is shared is shared with any other repository."""

    @property
    def percent(self) -> float:
        """Used, of the limit."""
        return 100.0 * self.used_bytes / self.account.limit_bytes if self.account.limit_bytes else 100.0


async def usage_of_accounts(store: ObjectStore) -> list[AccountUsage]:
    """All accounts, in the order of what they are for.  Raises FabricError of the store."""
    found = []
    for account in (await read_book(store)).accounts:
        figures = await read_figures(store, account.id)
        found.append(AccountUsage(account, figures.bytes, figures.count, Usage(), {}))
    sizes = [_Sizes(store, each.account) for each in found]
    try:
        async for digest, owners in _by_digest(store):
            for usage, held in zip(found, sizes, strict=True):
                inside = {owner.name for owner in owners if usage.account.covers(owner.name)}
                size = await held.of(digest) if inside else None
                if size is not None:
                    _add(usage, inside, {owner.name for owner in owners}, size)
    finally:
        for held in sizes:
            await held.close()
    return found


def _add(usage: AccountUsage, inside: set[str], everybody: set[str], size: int) -> None:
    usage.found.add(size, is_shared=inside != everybody)
    for name in inside:
        usage.repositories.setdefault(name, Usage()).add(size, is_shared=len(everybody) > 1)


async def _by_digest(store: ObjectStore) -> AsyncIterator[tuple[Digest, Sequence[Ownership]]]:
    """Each digest that anybody has, with all who have it."""
    together: list[Ownership] = []
    async for entry in entries(store, OWNERS_PREFIX):
        owned = ownership_at(entry.path)
        if together and together[0].digest != owned.digest:
            yield together[0].digest, together
            together = []
        together.append(owned)
    if together:
        yield together[0].digest, together


class _Sizes:
    """The sizes of what an account holds, asked for in the order of digests."""

    def __init__(self, store: ObjectStore, account: Account) -> None:
        self._prefix = f"{ACCOUNTS_PREFIX}{account.id}/held/"
        self._entries = entries(store, self._prefix)
        self._next: ObjectInfo | None = None
        self._is_at_end = False

    async def of(self, digest: Digest) -> int | None:
        """In bytes; None for what the account does not hold (yet, or any more)."""
        wanted = f"{self._prefix}{digest.algorithm}/{digest.value}"
        while not self._is_at_end and (self._next is None or self._next.path < wanted):
            self._next = await anext(self._entries, None)
            self._is_at_end = self._next is None
        if self._next is None or self._next.path != wanted:
            return None
        return int(self._next.attributes[SIZE])

    async def close(self) -> None:
        """End the listing."""
        await self._entries.aclose()
