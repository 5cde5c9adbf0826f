"""The list of repositories, and each one's list of tags: pages in byte order, straight from the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.errors import name_unknown
from fabric.driver.registry.names import NAMES_PREFIX, name_path, tags_prefix
from fabric.errors import NotFound
from fabric.settings import LIST_LIMIT_MAX


@dataclass(frozen=True, slots=True)
class NamesPage:
    """Some names in order; ``more``: others come after the last."""

    names: Sequence[str]
    more: bool


class Repositories:
    """Which repositories there are, and which tags they have."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def catalog(self, count: int, last: str, may_see: Callable[[str], bool]) -> NamesPage:
        """Up to ``count`` repositories, a page at most, after ``last`` (empty: from the first).

        Those that the client may not see are passed over, also when it says whether others come: so it
        learns nothing of them.
        """
        seen: list[str] = []
        limit = min(count + 1, LIST_LIMIT_MAX) if count else 0
        while True:
            page = await self._page(NAMES_PREFIX, limit, last)
            seen += [name for name in page.names if may_see(name)]
            if len(seen) > count or not page.more:
                return NamesPage(seen[:count], more=bool(count) and len(seen) > count)
            last, limit = page.names[-1], LIST_LIMIT_MAX

    async def tags(self, name: str, count: int, last: str) -> NamesPage:
        """Up to ``count`` tags after ``last``.  Raises RegistryError NAME_UNKNOWN."""
        page = await self._page(tags_prefix(name), count, last)
        if not page.names:
            await self._must_exist(name)
        return page

    async def _must_exist(self, name: str) -> None:
        try:
            await self._store.stat(name_path(name))
        except NotFound as error:
            raise name_unknown(name) from error

    async def _page(self, prefix: str, count: int, last: str) -> NamesPage:
        if count == 0:
            return NamesPage([], more=False)
        after = prefix + last if last else ""
        listing = await self._store.list(prefix, after=after, limit=count)
        return NamesPage([info.path.removeprefix(prefix) for info in listing.objects], bool(listing.next))
