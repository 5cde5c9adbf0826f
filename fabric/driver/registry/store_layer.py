"""A layer over a store of objects: everything is passed on, but for what a layer does itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fabric.driver.object_store import Buffer, ObjectReader, ObjectStore, ObjectWriter
from fabric.wire.messages import AnyOperation, FragmentRef, Listing, ObjectInfo


class StoreLayer:
    """An ``ObjectStore`` over ``_store``.  Layers write their own ``commit``, and more where they must."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def stat(self, path: str) -> ObjectInfo:
        """As the store's."""
        return await self._store.stat(path)

    async def open(self, path: str, offset: int = 0, length: int | None = None) -> ObjectReader:
        """As the store's."""
        return await self._store.open(path, offset, length)

    async def read(self, path: str, bytes_max: int) -> tuple[ObjectInfo, bytes]:
        """As the store's."""
        return await self._store.read(path, bytes_max)

    async def put(
        self,
        path: str,
        data: Buffer,
        *,
        digest: str = "",
        attributes: Mapping[str, str] | None = None,
        if_generation: int = -1,
        immutable: bool = False,
    ) -> ObjectInfo:
        """As the store's; what a layer looks after is set by commits."""
        self._check_put(path)
        return await self._store.put(
            path, data, digest=digest, attributes=attributes, if_generation=if_generation, immutable=immutable
        )

    def _check_put(self, path: str) -> None:
        """Fail for a path that only commits may set."""

    def writer(self, path: str, size: int) -> ObjectWriter:
        """As the store's."""
        return self._store.writer(path, size)

    async def stage(self, data: Buffer) -> Sequence[FragmentRef]:
        """As the store's."""
        return await self._store.stage(data)

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        """As the store's."""
        return await self._store.commit(operations)

    async def list(self, prefix: str, *, delimiter: str = "", after: str = "", limit: int = 1000) -> Listing:
        """As the store's."""
        return await self._store.list(prefix, delimiter=delimiter, after=after, limit=limit)
