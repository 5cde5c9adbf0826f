"""Looking names up for somebody who only reads: from a copy that is certain, else from the store."""

from __future__ import annotations

from collections.abc import Callable

from fabric.driver.name_cache import NameCache
from fabric.driver.object_store import ObjectStore
from fabric.wire.messages import ObjectInfo

WATCHED = ("repositories/",)
"""What copies are kept of: all of these are small, and read much more often than they change."""


class Lookups:
    """``cache`` is kept true by ``fabric.driver.watching``; without one everything is asked of the store."""

    def __init__(
        self,
        store: ObjectStore,
        cache: NameCache | None = None,
        monotonic_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._store = store
        self._cache = cache
        self._monotonic_s = monotonic_s

    async def stat(self, path: str) -> ObjectInfo:
        """What is at a path of ``WATCHED``; its generation may be an earlier one.  Raises NotFound."""
        cache = self._cache
        if cache is None:
            return await self._store.stat(path)
        info = cache.find(path, self._monotonic_s())
        if info is None:
            told = cache.told
            info = await self._store.stat(path)
            cache.keep(info, told)
        return info

    async def read(self, path: str, bytes_max: int) -> bytes:
        """A small object whose name is its digest.  Raises NotFound; BadRequest when it is larger."""
        cache = self._cache
        data = cache.content(path) if cache is not None else None
        if data is None:
            _, data = await self._store.read(path, bytes_max)
            if cache is not None:
                cache.keep_content(path, data)
        return data
