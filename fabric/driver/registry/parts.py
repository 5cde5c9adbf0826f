"""Uploads in parts: one blob through several connections, in any order, at any registry process.

A part is received into an object of its own, ``parts/<id>/incoming/<random>``.  When all of it is there,
one commit accepts it: it becomes the part that waits at its place, and whatever now follows on the prefix
without a gap is joined to ``uploads/<id>`` (``part_order`` has the rules; joining copies no byte).  So an
upload in parts is, at any time, a plain upload of its first bytes, with some later ones beside it; the rules
of ``uploads`` hold for it, and its end is theirs.

- The commit names the generation of the upload at which it looked, and raises it.  So two parts that share
  bytes can never both be accepted, whoever receives them.
- A part is there whole or not at all.  Accepting one again replaces it as long as it waits; when it is part
  of the prefix it must be the same bytes.
- Every commit that makes something demands the upload.  When that is over the rest is nobody's: whoever ended
  it removes it, or else garbage collection does.
- The prefix never changes, so its digest can be computed while parts arrive.  The process that joins a part
  claims that in the same commit (``following`` does it) unless another has; its results are attributes of the
  upload, so any process can end it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.blobs import MUST_EXIST
from fabric.driver.registry.bookkeeping import SINCE
from fabric.driver.registry.digests import Buffer, NewDigest
from fabric.driver.registry.errors import RegistryError, digest_invalid, size_invalid, upload_unknown
from fabric.driver.registry.following import CLAIM, DIGESTED, Claims
from fabric.driver.registry.names import (
    Digest,
    incoming_path,
    parts_prefix,
    upload_path,
    waiting_path,
    waiting_prefix,
)
from fabric.driver.registry.part_order import (
    BLOB_BYTES_MAX,
    PART_BYTES_MAX,
    PART_UNIT_BYTES,
    WAITING_MAX,
    Progress,
    chain,
    parse_claim,
    parse_digested,
)
from fabric.driver.registry.ranges import ByteRange, progress_header
from fabric.driver.registry.uploads import Upload, Uploads
from fabric.errors import FabricError, NotFound, Precondition, Unavailable
from fabric.settings import LIST_LIMIT_MAX, OPERATIONS_MAX
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    CheckOperation,
    DeleteOperation,
    JoinOperation,
    MoveOperation,
    PutOperation,
)

_ATTEMPTS_MAX = 200
"""Each one that fails means that somebody else's succeeded; not for ever."""

COMPARED_BY = "sha256"
"""How a part that came again is compared with what is here."""

Follow = Callable[[str, str], None]
"""Called with an upload's id and algorithm when this process is to compute the digest of its bytes."""


class Parts:
    """Receives parts, tells what is missing, and ends uploads in parts."""

    def __init__(
        self,
        store: ObjectStore,
        uploads: Uploads,
        new_digest: NewDigest,
        new_id: Callable[[], str],
        claims: Claims,
        follow: Follow,
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._new_digest = new_digest
        self._new_id = new_id
        self._claims = claims
        self._follow = follow

    async def start(self, name: str, algorithm: str, owner: str = "") -> Upload:
        """A new upload that takes parts."""
        return await self._uploads.start(name, algorithm, owner, in_parts=True)

    async def progress(self, upload: Upload) -> Progress:
        """What is here.  Raises RegistryError BLOB_UPLOAD_UNKNOWN."""
        try:
            info = await self._store.stat(upload_path(upload.upload_id))
        except NotFound as error:
            raise upload_unknown(upload.upload_id) from error
        prefix = waiting_prefix(upload.upload_id)
        listing = await self._store.list(prefix, limit=LIST_LIMIT_MAX)
        waiting = [ByteRange(int(each.path.removeprefix(prefix)), each.size) for each in listing.objects]
        return Progress(
            info.size,
            info.generation,
            waiting,
            parse_claim(info.attributes.get(CLAIM, "")),
            parse_digested(info.attributes.get(DIGESTED, "")),
        )

    # --- receiving --------------------------------------------------------------------------------

    async def receive(
        self, upload: Upload, part: ByteRange, body: AsyncIterable[Buffer], digest: Digest | None
    ) -> Upload:
        """Take one part; returns the upload as it is then.

        Of a body that breaks off nothing is kept.  Raises RegistryError: BLOB_UPLOAD_INVALID (416) for a
        part that lies across others or cannot be one, SIZE_INVALID when the body is not as long as
        declared, DIGEST_INVALID when it does not have the digest, or is here already with other bytes.
        """
        _check_shape(upload, part)
        seen = await self.progress(upload)
        if part.last < seen.size:
            await self._compare(upload, part, body, digest)
            return replace(upload, size=seen.size)
        _check_place(upload, seen, part)
        path = incoming_path(upload.upload_id, self._new_id())
        try:
            await self._store.commit(
                [CheckOperation(upload_path(upload.upload_id), MUST_EXIST), PutOperation(path, [])]
            )
        except Precondition as error:
            raise upload_unknown(upload.upload_id) from error
        is_accepted = False
        try:
            await self._store_body(upload, path, part, body, digest)
            size = await self._accept(upload, part, path)
            is_accepted = True
        finally:
            if not is_accepted:
                with suppress(FabricError):  # what is left here is found by garbage collection
                    await self._store.commit([DeleteOperation(path, missing_ok=True)])
        return replace(upload, size=size)

    async def _store_body(
        self, upload: Upload, path: str, part: ByteRange, body: AsyncIterable[Buffer], digest: Digest | None
    ) -> None:
        """Everything durable, of the right length and digest; or an error."""
        running = self._new_digest(digest.algorithm) if digest is not None else None
        writer = self._store.writer(path, 0)
        try:
            async for piece in _exactly(part, body):
                if running is not None:
                    await running.update(piece)
                await writer.write(piece)
            await writer.flush()
        except NotFound as error:
            raise upload_unknown(upload.upload_id) from error
        finally:
            await writer.abort()
        if running is not None and digest is not None:
            await running.settle()
            if running.value() != digest.value:
                raise digest_invalid(f"the part has the digest {running.algorithm}:{running.value()}", digest)

    async def _accept(self, upload: Upload, part: ByteRange, path: str) -> int:
        """Give a part that was received its place; returns the size of the prefix then."""
        put_in_place = MoveOperation(path, waiting_path(upload.upload_id, part.start))
        for _ in range(_ATTEMPTS_MAX):
            seen = await self.progress(upload)
            if part.last < seen.size:
                # The same part came twice at the same time.
                ours = await self._value_of(path, ByteRange(0, part.length))
                await self._check_same(upload, part, ours)
                await self._store.commit([DeleteOperation(path, missing_ok=True)])
                return seen.size
            _check_place(upload, seen, part)
            size = await self._join(upload, seen.with_part(part), [put_in_place])
            if size is not None:
                return await self._join_rest(upload, size)
        raise Unavailable(f"upload {upload.upload_id} is changed by others again and again")

    async def _join(self, upload: Upload, seen: Progress, first: list[AnyOperation]) -> int | None:
        """One commit: do ``first``, and join what can be; returns the size of the prefix then.

        None when the upload has changed since it was looked at.
        """
        path = upload_path(upload.upload_id)
        noted = {SINCE: str(self._claims.wall_ms())}
        following = chain(seen.size, seen.waiting)
        is_ours = bool(following) and self._claims.are_open(seen.claim)
        if is_ours:
            noted[CLAIM] = str(self._claims.make())
        steps: list[AnyOperation] = [
            CheckOperation(path, seen.generation),
            AppendOperation(path, [], seen.size, noted),
            *first,
        ]
        size = seen.size
        for part in following:
            steps.append(JoinOperation(path, waiting_path(upload.upload_id, part.start), size))
            size = part.last + 1
        try:
            await self._store.commit(steps)
        except Precondition:
            return None
        except NotFound as error:
            raise upload_unknown(upload.upload_id) from error
        if is_ours:
            self._follow(upload.upload_id, upload.algorithm)
        return size

    async def _join_rest(self, upload: Upload, size: int) -> int:
        """Join what one commit had no room for; returns the size of the prefix then."""
        for _ in range(_ATTEMPTS_MAX):
            seen = await self.progress(upload)
            if not chain(seen.size, seen.waiting):
                return max(size, seen.size)
            await self._join(upload, seen, [])
        raise Unavailable(f"upload {upload.upload_id} is changed by others again and again")

    # --- a part that came again -------------------------------------------------------------------

    async def _compare(
        self, upload: Upload, part: ByteRange, body: AsyncIterable[Buffer], digest: Digest | None
    ) -> None:
        """Hold a body against the bytes that are here already."""
        running = self._new_digest(COMPARED_BY)
        declared = self._new_digest(digest.algorithm) if digest is not None else None
        async for piece in _exactly(part, body):
            await running.update(piece)
            if declared is not None:
                await declared.update(piece)
        await running.settle()
        if declared is not None and digest is not None:
            await declared.settle()
            if declared.value() != digest.value:
                raise digest_invalid("the part has another digest", digest)
        await self._check_same(upload, part, running.value())

    async def _check_same(self, upload: Upload, part: ByteRange, value: str) -> None:
        if await self._value_of(upload_path(upload.upload_id), part) != value:
            text = f"bytes {part.start} to {part.last} are here already, and are others"
            raise digest_invalid(text, f"{COMPARED_BY}:{value}")

    async def _value_of(self, path: str, part: ByteRange) -> str:
        running = self._new_digest(COMPARED_BY)
        try:
            reader = await self._store.open(path, part.start, part.length)
        except NotFound as error:
            raise upload_unknown(path.split("/")[1]) from error
        try:
            async for piece in reader:
                await running.update(piece)
        finally:
            await reader.close()
        await running.settle()
        return running.value()

    # --- the end ----------------------------------------------------------------------------------

    async def finish(self, upload: Upload, digest: Digest, size: int | None) -> Progress | None:
        """Make the upload a blob of its repository, if nothing is missing and its bytes have the digest.

        None when that is done; while the digest is being computed, how far that is.  Safe to repeat.
        ``size``: of the blob; None: up to the last part that is here.  Raises RegistryError
        BLOB_UPLOAD_INVALID (416) that tells what is missing, with nothing changed, and what
        ``Uploads.complete`` raises.
        """
        if digest.algorithm != upload.algorithm:
            text = f"this upload was begun for a digest by {upload.algorithm}"
            raise digest_invalid(text, digest)
        await self._join_rest(upload, 0)
        seen = await self.progress(upload)
        end = seen.end if size is None else size
        if missing := seen.gaps(end):
            raise parts_missing(upload, seen, missing)
        if seen.end > end:
            raise size_invalid(f"the upload has {seen.end} bytes, the request says {end}")
        if seen.size == 0:
            value = self._new_digest(upload.algorithm).value()
        elif seen.digested.size == seen.size:
            value = seen.digested.value
        else:
            await self._see_to_digest(upload, seen)
            return seen
        try:
            await self._uploads.complete(replace(upload, size=seen.size), digest, value)
        finally:
            with suppress(FabricError):  # garbage collection finds what is left
                await self._sweep(upload)
        return None

    async def _see_to_digest(self, upload: Upload, seen: Progress) -> None:
        if not self._claims.are_open(seen.claim):
            return
        noted = {CLAIM: str(self._claims.make())}
        path = upload_path(upload.upload_id)
        with suppress(Precondition, NotFound):  # then the client's next request sees to it
            await self._store.commit(
                [CheckOperation(path, seen.generation), AppendOperation(path, [], seen.size, noted)]
            )
            self._follow(upload.upload_id, upload.algorithm)

    async def cancel(self, upload: Upload) -> None:
        """Discard the upload and all of its parts."""
        await self._uploads.cancel(upload)
        await self._sweep(upload)

    async def _sweep(self, upload: Upload) -> None:
        """Remove the parts of an upload that is over; of one that is not, nothing."""
        try:
            await self._store.stat(upload_path(upload.upload_id))
            return
        except NotFound:
            pass
        while True:
            page = await self._store.list(parts_prefix(upload.upload_id), limit=OPERATIONS_MAX)
            if not page.objects:
                return
            await self._store.commit([DeleteOperation(each.path, missing_ok=True) for each in page.objects])


# --- rules ----------------------------------------------------------------------------------------


async def _exactly(part: ByteRange, body: AsyncIterable[Buffer]) -> AsyncIterator[Buffer]:
    """The pieces of a body that must be as long as the part.  Raises RegistryError SIZE_INVALID."""
    size = 0
    async for piece in body:
        size += len(piece)
        if size > part.length:
            raise size_invalid("the body is longer than its Content-Range")
        yield piece
    if size != part.length:
        raise size_invalid("the body is shorter than its Content-Range")


def _check_shape(upload: Upload, part: ByteRange) -> None:
    if part.start % PART_UNIT_BYTES:
        raise _invalid(upload, f"a part begins at a multiple of {PART_UNIT_BYTES} bytes")
    if part.length > PART_BYTES_MAX:
        raise _invalid(upload, f"a part has at most {PART_BYTES_MAX} bytes")
    if part.last >= BLOB_BYTES_MAX:
        raise _invalid(upload, f"a blob has at most {BLOB_BYTES_MAX} bytes")


def _check_place(upload: Upload, seen: Progress, part: ByteRange) -> None:
    other = seen.in_the_way(part)
    if other is not None:
        text = f"bytes {other.start} to {other.last} are here already, and this part lies across them"
        raise _invalid(upload, text, other)
    if part.start != seen.size and part not in seen.waiting and len(seen.waiting) >= WAITING_MAX:
        text = f"{len(seen.waiting)} parts wait for the one that begins at byte {seen.size}: send that first"
        raise _invalid(upload, text)


def _invalid(upload: Upload, message: str, other: ByteRange | None = None) -> RegistryError:
    detail = {"start": other.start, "size": other.length} if other is not None else None
    return RegistryError(416, "BLOB_UPLOAD_INVALID", message, detail, {"Location": upload.location})


GAPS_TOLD_MAX = 100


def parts_missing(upload: Upload, seen: Progress, missing: list[ByteRange]) -> RegistryError:
    """416: the upload cannot end, because these bytes are not here."""
    first = missing[0]
    message = f"{len(missing)} ranges are missing, the first of them bytes {first.start} to {first.last}"
    detail = {"missing": [{"start": gap.start, "size": gap.length} for gap in missing[:GAPS_TOLD_MAX]]}
    headers = {"Location": upload.location, "Range": progress_header(seen.size)}
    return RegistryError(416, "BLOB_UPLOAD_INVALID", message, detail, headers)
