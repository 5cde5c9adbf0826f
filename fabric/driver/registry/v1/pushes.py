"""How an image comes to be: its JSON, then its layer, then a checksum that holds.

Until the checksum holds the image lies under ``uploads/`` and nobody can ask for it.  Then one commit
makes all of it: JSON, layer, ancestry, and the link of the repository that it was pushed for.  From there
on it never changes.

A client may begin anew at every step.  Each JSON that is sent begins another *push*, with an id of its own
that names where its layer will be, so that a layer never meets a JSON it was not sent for.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from fabric.driver.object_store import Buffer, ObjectStore
from fabric.driver.registry.digests import NewDigest
from fabric.driver.registry.v1.checksums import PAYLOAD, Checksum, payload_start
from fabric.driver.registry.v1.links import ANCESTRY_MAX, MUST_EXIST, Links, linking, raising
from fabric.driver.registry.v1.names import (
    ancestry_path,
    is_image_id,
    json_path,
    layer_path,
    links_path,
    pushed_json_path,
    pushed_layer_path,
    refused,
    stream_path,
)
from fabric.driver.registry.v1.visitor import Images, Visitor, absent
from fabric.errors import FabricError, NotFound, Precondition, Unavailable
from fabric.wire.messages import (
    AnyOperation,
    CheckOperation,
    DeleteOperation,
    MoveOperation,
    ObjectInfo,
    PutOperation,
)

JSON_BYTES_MAX = 1024 * 1024
"""Of what a client says of an image."""

ALREADY_EXISTS = "Image already exists"
"""Docker's client knows these words, and goes on."""

_ATTEMPTS_MAX = 4

SumOfLayer = Callable[[str, bytes, str], Awaitable[str]]
"""The tarsum of the object at a path, with the image's JSON, of a kind.  Raises RegistryError 400."""


class _Described(msgspec.Struct):
    """What matters here of an image's JSON."""

    id: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Push:
    """A push, as the store has it."""

    image: str
    push_id: str
    parent: str
    user: str
    image_json: bytes
    generation: int
    """Of the JSON's object."""


def described(image: str, data: bytes) -> str:
    """The parent that an image's JSON names; empty for none.  Raises RegistryError 400."""
    try:
        found = msgspec.json.decode(data, type=_Described)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(400, "Invalid JSON: an object with the key id is needed") from error
    if found.id != image:
        raise refused(400, "JSON data contains invalid id")
    if found.parent and (found.parent == image or not is_image_id(found.parent)):
        raise refused(400, "JSON data contains invalid parent")
    return found.parent or ""


class Pushes:
    """Takes images.  ``new_id`` makes random ids, ``wall_ms`` is the clock."""

    def __init__(
        self,
        store: ObjectStore,
        new_digest: NewDigest,
        sum_of_layer: SumOfLayer,
        new_id: Callable[[], str],
        wall_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._images = Images(store)
        self._links = Links(store)
        self._new_digest = new_digest
        self._sum_of_layer = sum_of_layer
        self._new_id = new_id
        self._wall_ms = wall_ms

    async def begin(self, visitor: Visitor, image: str, data: bytes) -> None:
        """Take an image's JSON.

        Raises RegistryError: 400 for JSON that cannot be taken, 404 for a parent that the client cannot
        pull, 409 when the image exists or another user is pushing it.
        """
        parent = described(image, data)
        if await self._images.stat(image) is not None:
            raise refused(409, ALREADY_EXISTS)
        if parent:
            await self._images.find_anywhere(visitor, parent)
        before = await self._stat(pushed_json_path(image))
        if before is not None and before.attributes["user"] != visitor.user:
            raise refused(409, "Image is being pushed by somebody else")
        attributes = {**self._dated(), "push": self._new_id(), "parent": parent, "user": visitor.user}
        await self._store.put(pushed_json_path(image), data, attributes=attributes)

    async def find(self, visitor: Visitor, image: str) -> Push:
        """The push of an image.  Raises RegistryError 404, also for another user's."""
        try:
            info, data = await self._store.read(pushed_json_path(image), JSON_BYTES_MAX)
        except NotFound as error:
            if await self._images.stat(image) is not None:
                raise refused(409, ALREADY_EXISTS) from error
            raise absent() from error
        noted = info.attributes
        if noted["user"] != visitor.user:
            raise absent()
        return Push(image, noted["push"], noted["parent"], noted["user"], data, info.generation)

    async def take_layer(self, push: Push, body: AsyncIterable[Buffer]) -> None:
        """Store a layer.  What breaks off leaves nothing.  Raises BodyInterrupted, FabricError."""
        source = stream_path(push.image, self._new_id())
        await self._store.put(source, b"", attributes=self._dated(), if_generation=0)
        try:
            checksum = await self._write(source, push, body)
            target = pushed_layer_path(push.image, push.push_id)
            attributes = {**self._dated(), "checksum": checksum}
            await self._store.commit(
                [
                    CheckOperation(pushed_json_path(push.image), MUST_EXIST),
                    MoveOperation(source, target, attributes=attributes, replace_attributes=True),
                ]
            )
        except BaseException as error:
            with suppress(FabricError):  # what stays expires
                await self._store.commit([DeleteOperation(source, missing_ok=True)])
            if isinstance(error, (NotFound, Precondition)):
                raise absent() from error  # the push is over
            raise

    async def _write(self, path: str, push: Push, body: AsyncIterable[Buffer]) -> str:
        """Store and hash side by side; returns the payload's checksum."""
        digest = self._new_digest("sha256")
        await digest.update(payload_start(push.image_json))
        writer = self._store.writer(path, 0)
        try:
            async for piece in body:
                await digest.update(piece)
                await writer.write(piece)
            if writer.size:
                await writer.flush()
        finally:
            await writer.abort()
            await digest.settle()
        return str(Checksum(PAYLOAD, digest.value()))

    async def finish(self, visitor: Visitor, image: str, declared: Checksum) -> None:
        """Make the image, if the checksum is that of what was pushed.

        Raises RegistryError: 400 when it is not, or no layer has come; 404 when nothing is being pushed.
        Finishing again with the right checksum is harmless.
        """
        for _ in range(_ATTEMPTS_MAX):
            if await self._is_finished(image, declared):
                return
            push = await self.find(visitor, image)
            layer = await self._stat(pushed_layer_path(image, push.push_id))
            if layer is None:
                raise refused(400, "The image's layer has not been pushed")
            await self._verify(push, layer, declared)
            if push.parent:
                await self._images.find_anywhere(visitor, push.parent)
                if visitor.repository:
                    await self._links.announce(visitor.repository)
                    await self._links.link(visitor.repository, push.parent)
            try:
                await self._store.commit(await self._finishing(visitor.repository, push, layer, declared))
            except (NotFound, Precondition):
                continue  # it was looked at by garbage collection, or changed by a rival
            return
        raise Unavailable(f"image {image} is being changed by others again and again")

    async def _is_finished(self, image: str, declared: Checksum) -> bool:
        """Whether the answer to an earlier request was lost.  Raises RegistryError 409 for another image."""
        info = await self._images.stat(image)
        if info is None:
            return False
        if str(declared) in (info.attributes["checksum"], info.attributes.get("tarsum")):
            return True
        raise refused(409, ALREADY_EXISTS)

    async def _verify(self, push: Push, layer: ObjectInfo, declared: Checksum) -> None:
        if declared.kind == PAYLOAD:
            is_right = str(declared) == layer.attributes["checksum"]
        else:
            is_right = declared.value == await self._sum_of_layer(layer.path, push.image_json, declared.kind)
        if not is_right:
            raise refused(400, "Checksum mismatch")

    async def _finishing(
        self, repository: str, push: Push, layer: ObjectInfo, declared: Checksum
    ) -> Sequence[AnyOperation]:
        """The one commit that makes an image."""
        image, parent = push.image, push.parent
        ancestors = list(await self._links.ancestry(parent)) if parent else []
        if len(ancestors) >= ANCESTRY_MAX:
            raise refused(400, f"An image has at most {ANCESTRY_MAX} layers")
        ancestry = await self._store.stage(msgspec.json.encode([image, *ancestors]))
        checksum = layer.attributes["checksum"]
        attributes = {"size": str(layer.size), "checksum": checksum}
        if declared.kind != PAYLOAD:
            attributes["tarsum"] = str(declared)
        has_parent: list[AnyOperation] = [CheckOperation(json_path(parent), MUST_EXIST)] if parent else []
        links: list[AnyOperation] = []
        if repository:
            links = [raising(repository), *linking(repository, image, checksum, parent, len(ancestors) + 1)]
        return [
            *has_parent,
            CheckOperation(pushed_json_path(image), push.generation),
            CheckOperation(layer.path, layer.generation),
            _making(pushed_json_path(image), json_path(image), attributes),
            _making(layer.path, layer_path(image), {}),
            PutOperation(ancestry_path(image), list(ancestry), if_generation=0, immutable=True),
            PutOperation(links_path(image), [], if_generation=0),
            *links,
        ]

    def _dated(self) -> dict[str, str]:
        """Without its time, garbage collection would take it for abandoned."""
        return {"started": str(self._wall_ms())}

    async def _stat(self, path: str) -> ObjectInfo | None:
        try:
            return await self._store.stat(path)
        except NotFound:
            return None


def _making(source: str, target: str, attributes: dict[str, str]) -> MoveOperation:
    """Let what was pushed be what everybody sees from now on."""
    return MoveOperation(
        source, target, attributes=attributes, replace_attributes=True, if_generation=0, immutable=True
    )
