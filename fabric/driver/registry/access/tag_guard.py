"""Immutable tags, kept where a tag becomes visible: at the commit.

Whatever path a change of a tag takes (a push, several tags of one push, the deletion of a manifest with
all of its tags), it ends in a commit.  Of a tag that is immutable, a commit may only create it or set it
to what it is; the generation that was seen goes into the commit, so that of two first pushes one wins.
The caller that meets ``Precondition`` looks again, comes back, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import tags_prefix
from fabric.driver.registry.store_layer import StoreLayer
from fabric.errors import NotFound
from fabric.wire.messages import (
    AnyOperation,
    DeleteOperation,
    MoveOperation,
    ObjectInfo,
    PutOperation,
)

IsImmutable = Callable[[str, str], bool]
"""Of a repository's tag."""


class TagGuard(StoreLayer):
    """An ``ObjectStore`` that refuses to change immutable tags with RegistryError DENIED."""

    def __init__(self, store: ObjectStore, is_immutable: IsImmutable) -> None:
        super().__init__(store)
        self._is_immutable = is_immutable

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        """As the store's, with the steps of immutable tags bound to what they are now."""
        return await self._store.commit([await self._guarded(operation) for operation in operations])

    async def _guarded(self, operation: AnyOperation) -> AnyOperation:
        match operation:
            case PutOperation() if self._is_guarded(operation.path):
                return await self._put(operation)
            case DeleteOperation() if self._is_guarded(operation.path):
                return await self._delete(operation)
            case MoveOperation():
                for path in (operation.source, operation.target):
                    assert not self._is_guarded(path), "tags are set and deleted, not moved"
        return operation

    def _is_guarded(self, path: str) -> bool:
        name, tag = tag_of_path(path)
        return bool(tag) and self._is_immutable(name, tag)

    async def _put(self, operation: PutOperation) -> PutOperation:
        try:
            current = await self._store.stat(operation.path)
        except NotFound:
            return _bound(operation, 0)
        if operation.digest != current.digest:
            _, tag = tag_of_path(operation.path)
            detail = {"tag": tag, "digest": current.digest}
            raise RegistryError(409, "DENIED", f"the tag {tag} is immutable and already set", detail)
        same = msgspec.structs.replace(operation, attributes=current.attributes)
        return _bound(same, current.generation)

    async def _delete(self, operation: DeleteOperation) -> DeleteOperation:
        try:
            await self._store.stat(operation.path)
        except NotFound:
            if not operation.missing_ok:
                raise
            return msgspec.structs.replace(operation, if_generation=0)
        _, tag = tag_of_path(operation.path)
        raise RegistryError(405, "DENIED", f"the tag {tag} is immutable and stays", {"tag": tag})

    def _check_put(self, path: str) -> None:
        assert tag_of_path(path) == ("", ""), "tags are set by commits"


def _bound(operation: PutOperation, generation: int) -> PutOperation:
    """The step on condition that nothing changes meanwhile; a condition that it has already is no weaker."""
    if operation.if_generation != -1:
        return operation
    return msgspec.structs.replace(operation, if_generation=generation)


def tag_of_path(path: str) -> tuple[str, str]:
    """The repository and the tag that a path is about; two empty texts for any other path."""
    before, found, tag = path.partition("/_tags/")
    name = before.removeprefix("repositories/")
    return (name, tag) if found and path == tags_prefix(name) + tag else ("", "")
