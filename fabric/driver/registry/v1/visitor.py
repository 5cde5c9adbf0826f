"""Who asks about images, and which of them they may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.v1.names import (
    image_path,
    json_path,
    owners_prefix,
    refused,
)
from fabric.errors import NotFound
from fabric.wire.messages import ObjectInfo

IMAGE_NOT_FOUND = "Image not found"


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client, for one request."""

    may_pull: Callable[[str], bool]
    """Whether the rules allow to pull from a repository."""
    user: str = ""
    repository: str = ""
    """The one that the request is about, or its session; empty where there is none."""
    is_trusted: bool = False
    """Nobody is refused anything here."""


def absent() -> Exception:
    """404; the same for what is not there and for what is not for this client."""
    return refused(404, IMAGE_NOT_FOUND)


class Images:
    """Finds images that are complete."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def find(self, visitor: Visitor, image: str) -> ObjectInfo:
        """The image's JSON, as the repository of the request has it.  Raises RegistryError 404."""
        info = await self.stat(image)
        if info is None or not (visitor.is_trusted or await self.is_in(visitor.repository, image)):
            raise absent()
        return info

    async def find_anywhere(self, visitor: Visitor, image: str) -> ObjectInfo:
        """The image's JSON, if the client may pull it from any repository.  Raises RegistryError 404.

        What may be built upon, or tagged elsewhere.
        """
        info = await self.stat(image)
        if info is None:
            raise absent()
        if visitor.is_trusted or await self.is_in(visitor.repository, image):
            return info
        after = ""
        while True:
            page = await self._store.list(owners_prefix(image), after=after)
            if any(visitor.may_pull(owner.path.removeprefix(owners_prefix(image))) for owner in page.objects):
                return info
            if not page.next:
                raise absent()
            after = page.next

    async def stat(self, image: str) -> ObjectInfo | None:
        """The image's JSON; None when there is no such image, or it is not complete."""
        try:
            return await self._store.stat(json_path(image))
        except NotFound:
            return None

    async def is_in(self, repository: str, image: str) -> bool:
        """Whether a repository has an image."""
        if not repository:
            return False
        try:
            await self._store.stat(image_path(repository, image))
        except NotFound:
            return False
        return True
