"""What a new quota finds: counted once, while everything goes on.

From the commit that writes a quota on, every commit that touches its repositories is counted.  What they
owned before has to be counted after the fact: one walk over all entries ``owners/…`` writes those anew that
are not counted yet, each at the generation it was seen at, and the store that it writes to keeps the
accounts of it (``accounts``).  So no entry is counted twice: not beside pushes and deletions, not by two
walks at once, and not by one that begins again after a crash, which passes by what is counted.  At the end
of the walk the account is complete, and refuses from then on.

The figures of a quota that is no more are removed here, too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.bookkeeping import Stamper
from fabric.driver.registry.collection import Pause
from fabric.driver.registry.indexing import Indexing, is_indexed
from fabric.driver.registry.quota.accounting import OWNERS_PREFIX, is_counted_by, ownership_at
from fabric.driver.registry.quota.accounts import AccountedStore
from fabric.driver.registry.quota.book import ACCOUNTS_PREFIX, BOOK_PATH, Book, set_counted
from fabric.errors import NotFound, Precondition, Unavailable
from fabric.wire.messages import CheckOperation, DeleteOperation, ObjectInfo, PutOperation

TOGETHER = 32
"""Entries counted in one commit."""

_REMOVED_TOGETHER = 200
_ATTEMPTS_MAX = 16


class Counting:
    """Brings all accounts up to date; ``pause`` is awaited between two steps."""

    def __init__(
        self, store: AccountedStore, stamper: Stamper, manifest_bytes_max: int, pause: Pause
    ) -> None:
        self._store = store.without_refusals()
        self._indexing = Indexing(self._store, stamper, manifest_bytes_max, pause)
        self._pause = pause

    async def run(self) -> Book:
        """Count and remove until nothing is left to do.  Raises FabricError of the store: run it again."""
        while True:
            book = await self._store.book()
            await self._remove_others(book)
            if not book.uncounted:
                return book
            if not await is_indexed(self._store):
                await self._indexing.run()
            await self._count(book)
            await set_counted(self._store, book.uncounted)

    async def _count(self, book: Book) -> None:
        waiting: list[ObjectInfo] = []
        async for entry in entries(self._store, OWNERS_PREFIX):
            if not _is_uncounted(book, entry):
                continue
            waiting.append(entry)
            if len(waiting) == TOGETHER:
                await self._count_all(book, waiting)
                await self._pause()
                waiting = []
        await self._count_all(book, waiting)

    async def _count_all(self, book: Book, waiting: Sequence[ObjectInfo]) -> None:
        if not waiting:
            return
        try:
            await self._store.commit([_again(entry) for entry in waiting])
        except (NotFound, Precondition):
            for entry in waiting:
                await self._count_one(book, entry)

    async def _count_one(self, book: Book, entry: ObjectInfo) -> None:
        for _ in range(_ATTEMPTS_MAX):
            try:
                await self._store.commit([_again(entry)])
                return
            except (NotFound, Precondition):
                try:
                    entry = await self._store.stat(entry.path)
                except NotFound:
                    return
            if not _is_uncounted(book, entry):
                return  # whoever wrote it has counted it
        raise Unavailable(f"{entry.path} is changed by others again and again")

    async def _remove_others(self, book: Book) -> None:
        """Remove the figures of accounts that the book does not have."""
        ids = {account.id for account in book.accounts}
        after = ""
        while True:
            page = await self._store.list(ACCOUNTS_PREFIX, delimiter="/", after=after)
            for folder in page.prefixes:
                if folder.removeprefix(ACCOUNTS_PREFIX).removesuffix("/") not in ids:
                    await self._remove(book, folder)
            after = page.next
            if not after:
                return

    async def _remove(self, book: Book, folder: str) -> None:
        while found := (await self._store.list(folder, limit=_REMOVED_TOGETHER)).objects:
            # One that was written since the book was read would be in a later book.
            is_same = CheckOperation(BOOK_PATH, book.generation)
            try:
                await self._store.commit(
                    [is_same, *(DeleteOperation(info.path, missing_ok=True) for info in found)]
                )
            except Precondition:
                return
            await self._pause()


def _is_uncounted(book: Book, entry: ObjectInfo) -> bool:
    account = book.account_of(ownership_at(entry.path).name)
    return account is not None and not account.is_counted and not is_counted_by(entry, account)


def _again(entry: ObjectInfo) -> PutOperation:
    """The same entry, if it is as it was seen; the accounted store adds the rest."""
    return PutOperation(entry.path, [], if_generation=entry.generation)


async def entries(store: ObjectStore, prefix: str) -> AsyncGenerator[ObjectInfo]:
    """Everything below a prefix, in order."""
    after = ""
    while True:
        page = await store.list(prefix, after=after)
        for info in page.objects:
            yield info
        after = page.next
        if not after:
            return
