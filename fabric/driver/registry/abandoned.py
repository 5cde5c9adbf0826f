"""What never came to an end: uploads, and pushes of manifests too large for one commit."""

from __future__ import annotations

from fabric.driver.registry.bookkeeping import PENDING_PREFIX, SINCE, marked, since_ms, trash_path
from fabric.driver.registry.collection import Decision, Run, dropping
from fabric.driver.registry.manifests import parse_manifest
from fabric.driver.registry.names import PARTS_PREFIX, UPLOADS_PREFIX, Digest, manifest_link_path, upload_path
from fabric.driver.registry.references import letting_go
from fabric.errors import NotFound
from fabric.wire.messages import AnyOperation, AppendOperation, CheckOperation, DeleteOperation, ObjectInfo

_STARTED = "started"
_SEEN_SIZE = "seen size"


async def discard_uploads(run: Run) -> None:
    """Discard uploads that do not grow any more.  Raises FabricError of the store.

    Nothing is written when bytes arrive: each pass notes the size that it sees, and since when.  So the
    time since the last byte is known as well as the passes are close together.
    """
    idle_ms = run.before_ms(run.policy.upload_idle_s)

    async def decide(info: ObjectInfo) -> Decision | None:
        noted = info.attributes
        has_date = SINCE in noted or _STARTED in noted
        if info.size != int(noted.get(_SEEN_SIZE, "0")) or not has_date:
            run.report.keep("uploads that grow")
            seen = {_SEEN_SIZE: str(info.size), SINCE: str(run.now_ms)}
            return Decision([AppendOperation(info.path, [], info.size, seen)])
        if int(noted[SINCE] if SINCE in noted else noted[_STARTED]) > idle_ms:
            run.report.keep("uploads that have not grown lately")
            return None
        return Decision(dropping(info).steps, "discarded_uploads")

    await run.look_at(UPLOADS_PREFIX, decide)


async def discard_parts(run: Run) -> None:
    """Discard parts whose upload is over.  Raises FabricError of the store.

    Ids are never used twice, and every commit that makes a part demands its upload: so nothing that is
    found without one will be needed.
    """

    async def decide(info: ObjectInfo) -> Decision | None:
        upload_id = info.path.removeprefix(PARTS_PREFIX).split("/", 1)[0]
        if await run.find(upload_path(upload_id)) is not None:
            run.report.keep("parts of uploads")
            return None
        return Decision(dropping(info).steps, "discarded_parts")

    await run.look_at(PARTS_PREFIX, decide)


async def release_pushes(run: Run) -> None:
    """Let go what dead pushes of large manifests hold.  Raises FabricError of the store."""
    ripe_ms = run.before_ms(run.policy.grace_s)
    async for mark in run.entries(PENDING_PREFIX):
        if since_ms(mark) > ripe_ms:
            run.report.keep("pushes of large manifests")
            continue
        name, digest = marked(mark.path, PENDING_PREFIX)
        if await _is_stored(run, name, digest):
            await run.drop(mark)
        elif await _release(run, mark, name, digest):
            run.report.released_pushes += 1


async def _is_stored(run: Run, name: str, digest: Digest) -> bool:
    """Whether the manifest is here or in the trash, so that its uses are its own."""
    for path in (manifest_link_path(name, digest), trash_path(name, "manifest", digest)):
        if await run.find(path) is not None:
            return True
    return False


async def _release(run: Run, found: ObjectInfo, name: str, digest: Digest) -> bool:
    # A push that is only slow shall fail at its next step, not find some of its holds gone.
    mark = await run.claim(found)
    if mark is None:
        return False
    try:
        info, data = await run.store.read(mark.path, run.manifest_bytes_max)
    except NotFound:
        return False
    if info.generation != mark.generation:
        return False  # the push has begun again
    manifest = parse_manifest(data, mark.attributes["mediaType"])
    conditions: list[AnyOperation] = [
        CheckOperation(mark.path, mark.generation),
        CheckOperation(manifest_link_path(name, digest), 0),
        CheckOperation(trash_path(name, "manifest", digest), 0),
    ]
    async for batch in letting_go(run.store, name, manifest, digest, run.now_ms):
        if not await run.attempt([*conditions, *batch]):
            return False
    return await run.attempt([*conditions, DeleteOperation(mark.path)])
