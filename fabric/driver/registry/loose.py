"""Blobs that no manifest of their repository references.

A client may have uploaded a blob, or may have been told that it need not, and its manifest is on the
way.  So a link ends in two steps, each after the grace time:

1. The link is put in doubt: who asks for the blob (HEAD) is told that it is not here, and uploads it
   again, which costs no space and makes the link anew.  Manifests are still accepted with it.
2. Nobody can have relied on it for a whole grace time: the link ends.

Without the first step, a client that was told "it is here" a moment ago could lose it to a pass.
"""

from __future__ import annotations

from fabric.driver.registry.bookkeeping import (
    LEAVING,
    LOOSE_PREFIX,
    SINCE,
    disowning,
    marked,
    since_ms,
    trash_path,
    uses_prefix,
)
from fabric.driver.registry.collection import Decision, Run, dropping
from fabric.driver.registry.names import Digest, blob_link_path
from fabric.wire.messages import AnyOperation, AppendOperation, DeleteOperation, ObjectInfo, PutOperation


async def collect_loose(run: Run) -> None:
    """Look at every blob that may be loose.  Raises FabricError of the store."""
    ripe_ms = run.before_ms(run.policy.grace_s)

    async def decide(mark: ObjectInfo) -> Decision | None:
        if since_ms(mark) > ripe_ms:
            run.report.keep("blobs without a manifest, within the grace time")
            return None
        name, digest = marked(mark.path, LOOSE_PREFIX)
        link = await run.find(blob_link_path(name, digest))
        if await run.has_any(uses_prefix(name, digest)):
            return dropping(mark)
        if link is None:
            return await _decide_on_trash(run, mark, name, digest)
        if link.attributes.get(LEAVING):
            return _unlinking(run, mark, link, name, digest)
        return _doubting(run, mark, link)

    await run.look_at(LOOSE_PREFIX, decide)


def _doubting(run: Run, mark: ObjectInfo, link: ObjectInfo) -> Decision:
    now = str(run.now_ms)
    steps: list[AnyOperation] = [
        PutOperation(mark.path, [], attributes={SINCE: now}, if_generation=mark.generation),
        AppendOperation(link.path, [], expected_size=0, attributes={LEAVING: now}),
    ]
    return Decision(steps, "doubted_blobs")


def _unlinking(run: Run, mark: ObjectInfo, link: ObjectInfo, name: str, digest: Digest) -> Decision:
    steps: list[AnyOperation] = [
        DeleteOperation(mark.path, if_generation=mark.generation),
        DeleteOperation(link.path, if_generation=link.generation),
        *disowning(digest, "blob", name, run.now_ms),
    ]
    return Decision(steps, "unlinked_blobs")


async def _decide_on_trash(run: Run, mark: ObjectInfo, name: str, digest: Digest) -> Decision | None:
    """A blob that was deleted while manifests still needed it, which have gone now."""
    trashed = await run.find(trash_path(name, "blob", digest))
    if trashed is None:
        return dropping(mark)
    if int(trashed.attributes["at"]) > run.before_ms(run.policy.undelete_s):
        run.report.keep("deleted blobs that can be restored")
        return None
    steps: list[AnyOperation] = [
        DeleteOperation(mark.path, if_generation=mark.generation),
        DeleteOperation(trashed.path, if_generation=trashed.generation),
        *disowning(digest, "blob", name, run.now_ms),
    ]
    return Decision(steps, "purged_blobs")
