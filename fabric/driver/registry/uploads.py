"""Uploads: how a blob comes to be.

An upload is an object of the store, ``uploads/<id>``, that grows request by request; any registry
process can continue it.  Three rules keep it right without a lock:

- An append names the size it starts from, and the store takes it only if that is still the size.  Of
  two requests that continue from the same byte one wins, and the other is told where the upload stands.
- What was appended never changes.  So a digest of the first n bytes, once computed, stays true.
- The end is one commit: "the upload has the n bytes whose digest was verified, and it is the blob from
  now on, and this repository links it".  Before it nothing is visible, after it all is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, replace

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.blobs import MUST_EXIST, Blobs
from fabric.driver.registry.bookkeeping import Stamper, linking_blob
from fabric.driver.registry.digests import Buffer, NewDigest, ParkedDigests, RunningDigest
from fabric.driver.registry.errors import (
    BodyInterrupted,
    RegistryError,
    digest_invalid,
    size_invalid,
    upload_unknown,
)
from fabric.driver.registry.names import Digest, blob_path, is_upload_id, upload_path
from fabric.driver.registry.ranges import ByteRange, progress_header
from fabric.errors import NotFound, Precondition, Unavailable
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    CheckOperation,
    DeleteOperation,
    MoveOperation,
)

IN_PARTS = "parts"
"""Attribute of an upload that takes parts in any order."""

LEFT_MAX = 1024
"""Uploads that a process remembers."""
_FINISH_ATTEMPTS_MAX = 4
"""A blob of the same digest may appear or vanish between looking and committing; not for ever."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload in progress, as the store has it."""

    upload_id: str
    name: str
    size: int
    algorithm: str
    """Of the digest that is computed while bytes arrive; another one costs a second reading."""
    owner: str = ""
    """The user who began it; nobody else can go on with it."""
    in_parts: bool = False
    """It takes parts in any order: see ``parts``."""

    @property
    def location(self) -> str:
        """The path under which it is continued."""
        return f"/v2/{self.name}/blobs/uploads/{self.upload_id}"


def out_of_order(upload: Upload) -> RegistryError:
    """416: the request does not begin where the upload ends; says where that is."""
    headers = {
        "Location": upload.location,
        "Range": progress_header(upload.size),
        "Docker-Upload-UUID": upload.upload_id,
    }
    message = f"the next byte of this upload is {upload.size}"
    return RegistryError(416, "BLOB_UPLOAD_INVALID", message, {"size": upload.size}, headers)


class Uploads:
    """Starts, continues, finishes and expires uploads.

    ``new_id`` makes random ids in a UUID's form; ``monotonic_s`` and ``wall_ms`` are the clocks.
    """

    def __init__(
        self,
        store: ObjectStore,
        new_digest: NewDigest,
        new_id: Callable[[], str],
        monotonic_s: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._blobs = Blobs(store, Stamper(wall_ms, new_id))
        self._new_digest = new_digest
        self._new_id = new_id
        self._monotonic_s = monotonic_s
        self._wall_ms = wall_ms
        self._parked = ParkedDigests()
        self._left: OrderedDict[str, Upload] = OrderedDict()
        """Uploads as requests to this process have left them; the latest are at the end."""

    async def start(self, name: str, algorithm: str, owner: str = "", *, in_parts: bool = False) -> Upload:
        """A new, empty upload that belongs to the repository, and to the user if there is one."""
        upload_id = self._new_id()
        assert is_upload_id(upload_id)
        attributes = {"repository": name, "started": str(self._wall_ms()), "algorithm": algorithm}
        if owner:
            attributes["owner"] = owner
        if in_parts:
            attributes[IN_PARTS] = "true"
        await self._store.put(upload_path(upload_id), b"", attributes=attributes, if_generation=0)
        return Upload(upload_id, name, 0, algorithm, owner, in_parts)

    async def find(self, name: str, upload_id: str, owner: str = "") -> Upload:
        """An upload of the repository and the user.

        Raises RegistryError BLOB_UPLOAD_UNKNOWN, also for another's.
        """
        if not is_upload_id(upload_id):
            raise upload_unknown(upload_id[:64])
        try:
            info = await self._store.stat(upload_path(upload_id))
        except NotFound as error:
            raise upload_unknown(upload_id) from error
        if info.attributes.get("repository") != name or info.attributes.get("owner", "") != owner:
            raise upload_unknown(upload_id)
        in_parts = IN_PARTS in info.attributes
        return Upload(upload_id, name, info.size, info.attributes["algorithm"], owner, in_parts)

    async def append(self, upload: Upload, body: AsyncIterable[Buffer], declared: ByteRange | None) -> Upload:
        """Add a request's body; returns the upload as it is then.

        ``declared`` is the request's Content-Range, None without one.  When the body breaks off, what
        came is kept and BodyInterrupted goes on.  Raises RegistryError 416 when the body does not begin
        at the end, or another request was faster; SIZE_INVALID when it is not as long as declared.
        """
        if declared is not None and declared.start != upload.size:
            raise out_of_order(upload)
        digest = await self._digest_of(upload, upload.algorithm)
        try:
            size = await self._write(upload, body, declared, digest)
        except Precondition as error:
            raise out_of_order(await self.find(upload.name, upload.upload_id, upload.owner)) from error
        except NotFound as error:
            raise upload_unknown(upload.upload_id) from error
        return self._leave(replace(upload, size=size))

    async def _write(
        self,
        upload: Upload,
        body: AsyncIterable[Buffer],
        declared: ByteRange | None,
        digest: RunningDigest,
    ) -> int:
        """Hash and store a body side by side; returns the durable size."""
        writer = self._store.writer(upload_path(upload.upload_id), upload.size)
        end = declared.last + 1 if declared is not None else None
        try:
            try:
                async for piece in body:
                    if end is not None and digest.size + len(piece) > end:
                        raise size_invalid("the body is longer than its Content-Range")
                    await digest.update(piece)
                    await writer.write(piece)
                if end is not None and digest.size != end:
                    raise size_invalid("the body is shorter than its Content-Range")
            except BodyInterrupted:
                await self._keep(upload, await writer.flush(), digest)
                raise
            size = await writer.flush() if digest.size > upload.size else upload.size
            await self._keep(upload, size, digest)
            return size
        finally:
            await writer.abort()

    async def _keep(self, upload: Upload, size: int, digest: RunningDigest) -> None:
        await digest.settle()
        assert digest.size == size, "the digest and the upload cover the same bytes"
        self._parked.park(upload.upload_id, digest, self._monotonic_s())

    async def _digest_of(self, upload: Upload, algorithm: str) -> RunningDigest:
        """A digest of all bytes of the upload, with those read again that are not in a parked one."""
        parked = self._parked.copy_of(upload.upload_id, algorithm, upload.size, self._monotonic_s())
        digest = parked if parked is not None else self._new_digest(algorithm)
        if digest.size < upload.size:
            missing = upload.size - digest.size
            try:
                reader = await self._store.open(upload_path(upload.upload_id), digest.size, missing)
            except NotFound as error:
                raise upload_unknown(upload.upload_id) from error
            try:
                async for piece in reader:
                    await digest.update(piece)
            finally:
                await reader.close()
        await digest.settle()
        assert digest.size == upload.size, "all bytes of the upload were read"
        return digest

    async def finish_as_left(self, name: str, upload_id: str, owner: str, digest: Digest) -> bool:
        """``finish`` without asking the store how the upload is, if this process knows bytes of that digest.

        They are what it appended last.  False when it does not know: then ``find`` the upload.  Raises what
        ``finish`` does.
        """
        left = self._left.get(upload_id)
        if left is None or (left.name, left.owner) != (name, owner):
            return False
        parked = self._parked.copy_of(upload_id, digest.algorithm, left.size, self._monotonic_s())
        if parked is None or parked.size != left.size or parked.value() != digest.value:
            return False
        await self.complete(left, digest, parked.value())
        return True

    async def finish(self, upload: Upload, digest: Digest) -> None:
        """Make the upload a blob of its repository, if its bytes have that digest.

        Otherwise the upload is discarded and RegistryError DIGEST_INVALID raised.  Raises RegistryError
        416 when the upload grew meanwhile.
        """
        computed = await self._digest_of(upload, digest.algorithm)
        await self.complete(upload, digest, computed.value())

    async def complete(self, upload: Upload, digest: Digest, computed: str) -> None:
        """``finish`` for an upload whose bytes have the value ``computed`` by the digest's algorithm."""
        if computed != digest.value:
            await self.cancel(upload)
            raise digest_invalid(f"the bytes have the digest {digest.algorithm}:{computed}", digest)
        is_stored = False
        for _ in range(_FINISH_ATTEMPTS_MAX):
            try:
                await self._store.commit(_finishing(upload, digest, is_stored, self._wall_ms()))
            except (Precondition, NotFound):
                if await self._is_finished(upload, digest):
                    break
                is_stored = not is_stored
            else:
                break
        else:
            raise Unavailable(f"{digest} is being stored and deleted by others at the same time")
        self._forget(upload)

    async def _is_finished(self, upload: Upload, digest: Digest) -> bool:
        """Whether a rival finished the upload; raises when it cannot be finished any more."""
        try:
            current = await self.find(upload.name, upload.upload_id, upload.owner)
        except RegistryError:
            if await self.was_finished(upload.name, digest):
                return True
            raise
        if current.size != upload.size:
            raise out_of_order(current)
        return False

    async def was_finished(self, name: str, digest: Digest) -> bool:
        """Whether the repository has the blob, so that finishing again is harmless."""
        try:
            await self._blobs.offer(name, digest)
        except RegistryError:
            return False
        return True

    async def cancel(self, upload: Upload) -> None:
        """Discard an upload and its bytes; harmless when it is gone."""
        await self._store.commit([DeleteOperation(upload_path(upload.upload_id), missing_ok=True)])
        self._forget(upload)

    def _leave(self, upload: Upload) -> Upload:
        self._left[upload.upload_id] = upload
        self._left.move_to_end(upload.upload_id)
        if len(self._left) > LEFT_MAX:
            self._left.popitem(last=False)
        return upload

    def _forget(self, upload: Upload) -> None:
        self._parked.drop(upload.upload_id)
        self._left.pop(upload.upload_id, None)


def _finishing(upload: Upload, digest: Digest, is_stored: bool, now_ms: int) -> list[AnyOperation]:
    """The one commit that ends an upload.  ``is_stored``: bytes of that digest are in the store already."""
    source, target = upload_path(upload.upload_id), blob_path(digest)
    has_these_bytes = AppendOperation(source, [], expected_size=upload.size)
    link = linking_blob(upload.name, digest, upload.size, now_ms)
    if is_stored:
        return [has_these_bytes, CheckOperation(target, MUST_EXIST), *link, DeleteOperation(source)]
    move = MoveOperation(
        source, target, digest=str(digest), replace_attributes=True, if_generation=0, immutable=True
    )
    return [has_these_bytes, move, *link]
