"""Which repositories have which images, and the end of images that none has.

Two invariants, each kept by every single commit:

- A repository that has an image has all its ancestors.  So they are linked from the first on, and each
  link demands the one of its parent.  They are let go from the last on, only all at once, and only as
  long as the repository has the generation that it had before they were listed: each link raises it.
- An image is there as long as it has an owner: the last one that lets go removes it, at the generation of
  its ``links`` at which no other owner was seen.  Every link that is made or let go raises that generation,
  so of two changes at the same time one fails and looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.v1.names import (
    ancestry_path,
    files_path,
    image_path,
    images_prefix,
    json_path,
    layer_path,
    links_path,
    name_path,
    owner_path,
    owners_prefix,
)
from fabric.driver.registry.v1.visitor import absent
from fabric.errors import NotFound, Precondition, Unavailable
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    CheckOperation,
    DeleteOperation,
    ObjectInfo,
    PutOperation,
)

MUST_EXIST = -1
ANCESTRY_MAX = 1024
ANCESTRY_BYTES_MAX = 128 * ANCESTRY_MAX

_BATCH = 50
"""Images linked in one commit."""

_ATTEMPTS_MAX = 16


def linking(name: str, image: str, checksum: str, parent: str, depth: int) -> list[AnyOperation]:
    """Make an image a repository's own.  Fails unless its parent is.

    The commit must also raise the repository's generation, and make the image or raise its ``links``.
    """
    has_parent: list[AnyOperation] = [CheckOperation(image_path(name, parent), MUST_EXIST)] if parent else []
    attributes = {"checksum": checksum, "depth": str(depth)}
    return [
        *has_parent,
        PutOperation(owner_path(image, name), []),
        PutOperation(image_path(name, image), [], attributes=attributes),
    ]


def depth_of(link: ObjectInfo) -> int:
    """How many images a linked one consists of."""
    return int(link.attributes["depth"])


def raising(name: str) -> AppendOperation:
    """Raise the generation of a repository, which must exist."""
    return AppendOperation(name_path(name), [], 0)


class Links:
    """Links images to repositories."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def ancestry(self, image: str) -> Sequence[str]:
        """The image, its parent, and so on.  Raises RegistryError 404."""
        try:
            _, data = await self._store.read(ancestry_path(image), ANCESTRY_BYTES_MAX)
        except NotFound as error:
            raise absent() from error
        return msgspec.json.decode(data, type=list[str])

    async def announce(self, name: str) -> None:
        """Let the repository exist."""
        with suppress(Precondition):  # it does
            await self._store.commit([PutOperation(name_path(name), [], if_generation=0)])

    async def link(self, name: str, image: str) -> None:
        """Make an image and its ancestors the repository's own, which must exist.

        Raises RegistryError 404 when one of them is being removed, or the repository.
        """
        ancestry = await self.ancestry(image)
        missing = []
        for position, one in enumerate(ancestry):
            if await self._is_linked(name, one):
                break  # and so are all behind it
            missing.append((one, (*ancestry[position + 1 :], "")[0], len(ancestry) - position))
        missing.reverse()
        for start in range(0, len(missing), _BATCH):
            steps: list[AnyOperation] = [raising(name)]
            for one, parent, depth in missing[start : start + _BATCH]:
                checksum = await self._checksum(one)
                steps += [
                    *linking(name, one, checksum, parent, depth),
                    AppendOperation(links_path(one), [], 0),
                ]
            try:
                await self._store.commit(steps)
            except (NotFound, Precondition) as error:
                raise absent() from error

    async def _is_linked(self, name: str, image: str) -> bool:
        try:
            await self._store.stat(image_path(name, image))
        except NotFound:
            return False
        return True

    async def _checksum(self, image: str) -> str:
        try:
            return (await self._store.stat(json_path(image))).attributes["checksum"]
        except NotFound as error:
            raise absent() from error

    async def all_of(self, name: str) -> list[ObjectInfo]:
        """The links of all images that a repository has."""
        found: list[ObjectInfo] = []
        after = ""
        while True:
            page = await self._store.list(images_prefix(name), after=after)
            found += page.objects
            if not page.next:
                return found
            after = page.next

    async def unlink_all(self, name: str, generation: int) -> bool:
        """Let all images of a repository go; those that no other has are removed.

        ``generation`` is that of the repository, seen before.  False: it was changed meanwhile.
        """
        for link in sorted(await self.all_of(name), key=depth_of, reverse=True):
            if not await self._unlink(name, generation, link.path.removeprefix(images_prefix(name))):
                return False
        return True

    async def _unlink(self, name: str, generation: int, image: str) -> bool:
        """Let an image go, and remove it if no other repository has it, both in one commit."""
        for _ in range(_ATTEMPTS_MAX):
            steps: list[AnyOperation] = [
                CheckOperation(name_path(name), generation),
                DeleteOperation(image_path(name, image), missing_ok=True),
                DeleteOperation(owner_path(image, name), missing_ok=True),
            ]
            try:
                links = await self._store.stat(links_path(image))
                owners = (await self._store.list(owners_prefix(image), limit=2)).objects
                if any(owner.path != owner_path(image, name) for owner in owners):
                    # Of two owners that let go at the same time, the second shall see that it is the last.
                    steps += [
                        CheckOperation(links.path, links.generation),
                        AppendOperation(links.path, [], 0),
                    ]
                else:
                    steps += _removing(image, links.generation)
                await self._store.commit(steps)
            except NotFound:
                return True  # another has let it go, and removed it
            except Precondition:
                if await self._generation_of(name) != generation:
                    return False
                continue  # somebody else links it, or lets it go
            return True
        raise Unavailable(f"image {image} is being changed by others again and again")

    async def _generation_of(self, name: str) -> int:
        """The repository's; 0 when there is none."""
        try:
            return (await self._store.stat(name_path(name))).generation
        except NotFound:
            return 0


def _removing(image: str, generation: int) -> list[AnyOperation]:
    """Remove an image, unless it was linked since its ``links`` had that generation."""
    paths = (json_path(image), layer_path(image), ancestry_path(image), files_path(image))
    return [
        DeleteOperation(links_path(image), if_generation=generation),
        *(DeleteOperation(path, missing_ok=True) for path in paths),
    ]
