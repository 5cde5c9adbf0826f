"""The book of quotas: which accounts there are, kept in the store, where every process finds it.

``meta/quotas`` lists the accounts.  Each has an id, used once, under which its figures lie::

    accounts/<id>/total               bytes and count of all digests that the account holds
    accounts/<id>/held/<alg>/<hex>    one of them: its size, and by how many of the account's links

and every entry ``owners/…`` that was counted names in its attributes the account that counts it.
``accounts`` says how these are kept right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.names import Digest
from fabric.driver.registry.quota.quotas import Quota, covers
from fabric.errors import NotFound, Precondition, Unavailable
from fabric.wire.messages import ObjectInfo

BOOK_PATH = "meta/quotas"
ACCOUNTS_PREFIX = "accounts/"

ACCOUNT = "account"
"""Attribute of an owner's entry: the id of the account that counts it."""

SIZE, LINKS, BYTES, COUNT = "size", "links", "bytes", "count"
"""Attributes of what an account holds, and of its total."""

_BOOK_BYTES_MAX = 4 * 1024 * 1024
_ATTEMPTS_MAX = 16


class Account(msgspec.Struct, frozen=True):
    """One quota as the store knows it."""

    id: str
    repositories: str
    limit_bytes: int
    is_counted: bool = False
    """Whether its figures tell everything; until then it refuses nothing."""

    def covers(self, name: str) -> bool:
        """Whether it counts this repository."""
        return covers(self.repositories, name)


class Book(msgspec.Struct, frozen=True):
    """All accounts, as they were at a generation of the book; 0: there has never been a quota."""

    generation: int = 0
    accounts: tuple[Account, ...] = ()

    def account_of(self, name: str) -> Account | None:
        """The account that counts a repository."""
        return next((account for account in self.accounts if account.covers(name)), None)

    @property
    def uncounted(self) -> frozenset[str]:
        """Ids of accounts whose figures do not tell everything yet."""
        return frozenset(account.id for account in self.accounts if not account.is_counted)


class Figures(msgspec.Struct, frozen=True):
    """What an account holds together, at a generation; 0: it has never held anything."""

    generation: int = 0
    bytes: int = 0
    count: int = 0


def total_path(account: str) -> str:
    """The figures of an account."""
    return f"{ACCOUNTS_PREFIX}{account}/total"


def held_path(account: str, digest: Digest) -> str:
    """That the account holds these bytes."""
    return f"{ACCOUNTS_PREFIX}{account}/held/{digest.algorithm}/{digest.value}"


def figures_of(info: ObjectInfo) -> Figures:
    """The figures in an account's total."""
    return Figures(info.generation, int(info.attributes[BYTES]), int(info.attributes[COUNT]))


async def read_book(store: ObjectStore) -> Book:
    """The book as it is now.  Raises FabricError of the store."""
    try:
        await store.stat(BOOK_PATH)
    except NotFound:
        return Book()  # most stores have none, and nothing has to be read to know that
    info, data = await store.read(BOOK_PATH, _BOOK_BYTES_MAX)
    return Book(info.generation, msgspec.json.decode(data, type=tuple[Account, ...]))


async def read_figures(store: ObjectStore, account: str) -> Figures:
    """The figures of an account as they are now.  Raises FabricError of the store."""
    try:
        return figures_of(await store.stat(total_path(account)))
    except NotFound:
        return Figures()


async def declare(store: ObjectStore, quotas: Sequence[Quota], new_id: Callable[[], str]) -> Book:
    """Let these quotas hold from now on, and no others; returns the book that says so.

    An account that is there already keeps its figures, also with another limit; a new one has to be
    counted.  When nothing changes nothing is written.  Raises FabricError of the store.
    """

    def change(accounts: tuple[Account, ...]) -> tuple[Account, ...]:
        known = {account.repositories: account for account in accounts}
        return tuple(
            msgspec.structs.replace(known[quota.repositories], limit_bytes=quota.limit_bytes)
            if quota.repositories in known
            else Account(new_id(), quota.repositories, quota.limit_bytes)
            for quota in sorted(quotas, key=lambda quota: quota.repositories)
        )

    return await _change(store, change)


async def set_counted(store: ObjectStore, ids: frozenset[str]) -> Book:
    """Note that the figures of these accounts tell everything; returns the book that says so."""

    def change(accounts: tuple[Account, ...]) -> tuple[Account, ...]:
        return tuple(
            msgspec.structs.replace(account, is_counted=account.is_counted or account.id in ids)
            for account in accounts
        )

    return await _change(store, change)


async def _change(store: ObjectStore, change: Callable[[tuple[Account, ...]], tuple[Account, ...]]) -> Book:
    for _ in range(_ATTEMPTS_MAX):
        book = await read_book(store)
        accounts = change(book.accounts)
        if accounts == book.accounts:
            return book
        try:
            info = await store.put(BOOK_PATH, msgspec.json.encode(accounts), if_generation=book.generation)
        except Precondition:
            continue
        return Book(info.generation, accounts)
    raise Unavailable("the quotas are changed by others again and again")
