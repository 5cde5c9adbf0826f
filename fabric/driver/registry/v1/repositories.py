"""Repositories of the v1 protocol: which images and tags they have, and how they are found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.v1.links import MUST_EXIST, Links, raising
from fabric.driver.registry.v1.names import (
    NAMES_PREFIX,
    image_path,
    images_prefix,
    is_image_id,
    name_path,
    refused,
    tag_path,
    tags_prefix,
)
from fabric.driver.registry.v1.visitor import Images, Visitor
from fabric.errors import NotFound, Precondition, Unavailable
from fabric.settings import OPERATIONS_MAX
from fabric.wire.messages import CheckOperation, DeleteOperation, ObjectInfo, PutOperation

RESULTS_MAX = 100
"""Of one search."""

_ATTEMPTS_MAX = 8


class _Announced(msgspec.Struct):
    """An entry of the list that a client sends before and after its images."""

    id: str


def check_announced(data: bytes) -> None:
    """Hold a list of images against its form.  Raises RegistryError 400."""
    try:
        entries = msgspec.json.decode(data, type=list[_Announced])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(400, "Invalid data: a list of objects with the key id is needed") from error
    if not all(is_image_id(entry.id) for entry in entries):
        raise refused(400, "Invalid data: an id is not an image's")


class Repositories:
    """Tags images and finds repositories."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._images = Images(store)
        self._links = Links(store)

    async def announce(self, name: str) -> None:
        """Let the repository exist."""
        if await self._stat(name_path(name)) is None:
            await self._links.announce(name)

    async def images(self, name: str) -> list[dict[str, str]]:
        """Each image's id and checksum.  Raises RegistryError 404."""
        await self._must_exist(name)
        links = await self._links.all_of(name)
        return [
            {"id": link.path.removeprefix(images_prefix(name)), "checksum": link.attributes["checksum"]}
            for link in links
        ]

    async def tags(self, name: str) -> dict[str, str]:
        """Each tag's image.  Raises RegistryError 404."""
        await self._must_exist(name)
        prefix = tags_prefix(name)
        return {
            info.path.removeprefix(prefix): info.attributes["image"] async for info in self._entries(prefix)
        }

    async def tagged(self, name: str, tag: str) -> str:
        """The image of a tag.  Raises RegistryError 404."""
        info = await self._stat(tag_path(name, tag))
        if info is None:
            raise refused(404, "Tag not found")
        return info.attributes["image"]

    async def set_tag(self, visitor: Visitor, name: str, tag: str, image: str, *, once: bool) -> None:
        """Let a tag name an image, which is the repository's own from then on.

        ``once``: a tag that is there stays as it is.  Raises RegistryError 404 for an image that the client
        cannot pull, 409 for a tag that has to stay.
        """
        for _ in range(_ATTEMPTS_MAX):
            await self.announce(name)
            await self._images.find_anywhere(visitor, image)
            seen = await self._stat(tag_path(name, tag))
            if seen is not None and once:
                if seen.attributes["image"] == image:
                    return
                raise refused(409, "The tag is immutable")
            await self._links.link(name, image)
            condition = -1 if not once else 0
            try:
                await self._store.commit(
                    [
                        CheckOperation(image_path(name, image), MUST_EXIST),
                        PutOperation(
                            tag_path(name, tag), [], attributes={"image": image}, if_generation=condition
                        ),
                        raising(name),
                    ]
                )
            except (NotFound, Precondition):
                continue  # the repository is being deleted, or a rival set the tag
            return
        raise Unavailable(f"tag {tag} of {name} is being changed by others again and again")

    async def delete_tag(self, name: str, tag: str, *, once: bool) -> None:
        """Forget a tag.  Raises RegistryError 404; 409 for a tag that has to stay."""
        await self.tagged(name, tag)
        if once:
            raise refused(409, "The tag is immutable")
        try:
            await self._store.commit([DeleteOperation(tag_path(name, tag))])
        except NotFound as error:
            raise refused(404, "Tag not found") from error

    async def delete(self, name: str, is_immutable: Callable[[str], bool]) -> None:
        """Forget the repository, its tags, and the images that no other has.

        Raises RegistryError 404; 409 when a tag has to stay.
        """
        await self._must_exist(name)
        for _ in range(_ATTEMPTS_MAX):
            # Whoever sets a tag or links an image raises the generation; then all is looked at again.
            seen = await self._stat(name_path(name))
            if seen is None:
                return
            if any(map(is_immutable, await self.tags(name))):
                raise refused(409, "A tag of the repository is immutable")
            await self._delete_tags(name)
            if not await self._links.unlink_all(name, seen.generation):
                continue
            try:
                await self._store.commit([DeleteOperation(seen.path, if_generation=seen.generation)])
            except (NotFound, Precondition):
                continue
            return
        raise Unavailable(f"{name} is being changed by others again and again")

    async def _delete_tags(self, name: str) -> None:
        while page := (await self._store.list(tags_prefix(name), limit=OPERATIONS_MAX)).objects:
            await self._store.commit([DeleteOperation(info.path, missing_ok=True) for info in page])

    async def search(self, text: str, may_see: Callable[[str], bool]) -> Sequence[str]:
        """Repositories with ``text`` in their names that the client may pull from, some at most."""
        found: list[str] = []
        async for info in self._entries(NAMES_PREFIX):
            name = info.path.removeprefix(NAMES_PREFIX)
            if text in name and may_see(name):
                found.append(name)
                if len(found) == RESULTS_MAX:
                    break
        return found

    async def _must_exist(self, name: str) -> None:
        if await self._stat(name_path(name)) is None:
            raise refused(404, "Repository not found")

    async def _entries(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        after = ""
        while True:
            page = await self._store.list(prefix, after=after)
            for info in page.objects:
                yield info
            after = page.next
            if not after:
                return

    async def _stat(self, path: str) -> ObjectInfo | None:
        try:
            return await self._store.stat(path)
        except NotFound:
            return None
