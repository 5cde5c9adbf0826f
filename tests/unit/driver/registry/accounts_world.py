"""Accounts, counted anew by someone who trusts none of their figures."""

from __future__ import annotations

from fabric.driver.registry.quota.book import declare, read_book
from fabric.driver.registry.quota.quotas import make_quotas
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Process, run

TIB = 2**40


async def set_quotas(process: Process, *quotas: tuple[str, int | str]) -> None:
    """Let these quotas hold, and count what is there."""
    await declare(process.accounts, make_quotas(quotas), process.clock.new_id)
    await process.counting.run()


class Recount:
    """What each account must say, and what it says."""

    def __init__(self, store: MemoryStore) -> None:
        self.book = run(read_book(store))
        self.owned: dict[str, dict[str, int]] = {}
        """By account: the digests that its repositories have, in the trash too, and their links."""
        for path in store.paths("owners/"):
            _, algorithm, value, _, name = path.split("/", 4)
            account = self.book.account_of(name)
            if account is not None:
                links = self.owned.setdefault(account.id, {})
                links[f"{algorithm}/{value}"] = links.get(f"{algorithm}/{value}", 0) + 1
        self._store = store

    def wrong(self) -> list[str]:
        """Every figure that is not what it must be."""
        found = []
        for account in self.book.accounts:
            owned = self.owned.get(account.id, {})
            sizes = {digest: self._size(digest) for digest in owned}
            held = {
                path.split("/held/")[1]: self._numbers(path, "size", "links")
                for path in self._store.paths(f"accounts/{account.id}/held/")
            }
            if held != {digest: (sizes[digest], links) for digest, links in owned.items()}:
                found.append(f"{account.repositories} holds {held}, and must hold {owned}")
            total = f"accounts/{account.id}/total"
            figures = self._numbers(total, "bytes", "count") if total in self._store.entries else (0, 0)
            if figures != (sum(sizes.values()), len(owned)):
                found.append(f"{account.repositories} says {figures}, and must say {sizes}")
        return found

    def used(self, repositories: str) -> int:
        """Bytes in an account, recounted."""
        account = next(each for each in self.book.accounts if each.repositories == repositories)
        return sum(self._size(digest) for digest in self.owned.get(account.id, {}))

    def _size(self, digest: str) -> int:
        algorithm, value = digest.split("/")
        return self._store.entries[f"blobs/{algorithm}/{value[:2]}/{value}"].size

    def _numbers(self, path: str, *keys: str) -> tuple[int, ...]:
        attributes = self._store.entries[path].attributes or {}
        return tuple(int(attributes[key]) for key in keys)
