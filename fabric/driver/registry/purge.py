"""The end of the time in which a deletion can be undone.

Marks under ``retired/`` sort by time, so a pass looks at those that are due and at no other.  What is
purged here only loses its entry: the bytes go when nobody owns them any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from fabric.driver.registry.bookkeeping import (
    RETIRED_PREFIX,
    disowning,
    history_prefix,
    mark,
    pending_path,
    tagged_path,
    trash_path,
    trash_prefix,
    untagged_path,
    uses_prefix,
)
from fabric.driver.registry.collection import TOGETHER, Decision, Run, dropping
from fabric.driver.registry.history import DELETED, event_of
from fabric.driver.registry.manifests import parse_manifest
from fabric.driver.registry.names import (
    Digest,
    blob_path,
    manifest_link_path,
    manifest_links_prefix,
    name_path,
    parse_digest,
    referrers_prefix,
)
from fabric.driver.registry.references import letting_go
from fabric.errors import NotFound
from fabric.wire.messages import AnyOperation, CheckOperation, DeleteOperation, ObjectInfo

_EVENTS_PER_COMMIT = 80
_REFERRERS_PER_COMMIT = 200


async def purge_retired(run: Run) -> None:
    """Purge what is due.  Raises FabricError of the store."""
    batch: list[ObjectInfo] = []
    async for retired in _due(run):
        batch.append(retired)
        if len(batch) == TOGETHER:
            await _purge_all(run, batch)
            batch = []
    await _purge_all(run, batch)


async def _purge_all(run: Run, batch: Sequence[ObjectInfo]) -> None:
    is_tag = [retired.attributes["kind"] == "tag" for retired in batch]
    trash = [each for each, tag in zip(batch, is_tag, strict=True) if not tag]
    await run.settle(await run.pace.gather([_purge_trash(run, retired) for retired in trash]))
    await _purge_tag_states(run, [each for each, tag in zip(batch, is_tag, strict=True) if tag])
    await run.pace.pause()


async def _due(run: Run) -> AsyncIterator[ObjectInfo]:
    due_ms = run.before_ms(run.policy.undelete_s)
    async for retired in run.entries(RETIRED_PREFIX):
        if int(_key_of(retired).split("-", 1)[0]) > due_ms:
            run.report.keep("deletions and changes of tags that can be undone, at least")
            return
        yield retired


def _key_of(retired: ObjectInfo) -> str:
    return retired.path.removeprefix(RETIRED_PREFIX).split("/", 1)[0]


# --- tags -----------------------------------------------------------------------------------------


async def _purge_tag_states(run: Run, changes: Sequence[ObjectInfo]) -> None:
    """Forget what tags were before changes that are long past.

    Of several changes of one tag the newest does the work of all.
    """
    newest: dict[tuple[str, str], ObjectInfo] = {}
    for change in sorted(changes, key=lambda change: change.generation):
        newest[change.attributes["repository"], change.attributes["tag"]] = change
    working = list(newest.values())
    others = [dropping(change) for change in changes if change not in working]
    decisions = await run.pace.gather([_forget_before(run, change) for change in working])
    await run.settle([*decisions, *others])


async def _forget_before(run: Run, change: ObjectInfo) -> Decision:
    name, tag = change.attributes["repository"], change.attributes["tag"]
    done = DeleteOperation(change.path, missing_ok=True)
    event = await run.find(f"{history_prefix(name, tag)}{_key_of(change)}")
    if event is None:
        return Decision([done])
    # The oldest come first, so that one page is enough to make progress.
    page = await run.store.list(history_prefix(name, tag), limit=_EVENTS_PER_COMMIT)
    older = [info for info in page.objects if info.generation < event.generation]
    if len(older) == _EVENTS_PER_COMMIT:
        return Decision(await _forgetting(run, name, older), "purged_tag_states", amount=len(older))
    # "There is no tag" needs no entry.
    gone = [event] if event_of(event).what == DELETED else []
    steps = await _forgetting(run, name, [*older, *gone])
    return Decision([*steps, done], "purged_tag_states", amount=len(older))


async def _forgetting(run: Run, name: str, entries: Sequence[ObjectInfo]) -> list[AnyOperation]:
    """The steps that remove entries.  A manifest that is still here may have lost its last name."""
    steps: list[AnyOperation] = []
    events = [event_of(info) for info in entries]
    for info, event in zip(entries, events, strict=True):
        steps.append(DeleteOperation(info.path, missing_ok=True))
        if event.digest is not None:
            hint = tagged_path(name, event.digest, event.tag, event.key)
            steps.append(DeleteOperation(hint, missing_ok=True))
    for digest in dict.fromkeys(event.digest for event in events):
        if digest is None:
            continue
        if await run.find(manifest_link_path(name, digest)) is not None:
            steps.append(mark(untagged_path(name, digest), run.now_ms))
    return steps


# --- the trash ------------------------------------------------------------------------------------


async def _purge_trash(run: Run, retired: ObjectInfo) -> Decision | None:
    name, kind = retired.attributes["repository"], retired.attributes["kind"]
    digest = parse_digest(retired.attributes["digest"])
    trashed = await run.find(trash_path(name, "blob" if kind == "blob" else "manifest", digest))
    if trashed is None or trashed.attributes["key"] != _key_of(retired):
        return dropping(retired)  # restored, or deleted once more since
    if await run.has_any(uses_prefix(name, digest)):
        # A manifest, perhaps one in the trash, would be broken for good.  Whoever ends the last use
        # sets a mark again.
        run.report.keep("deleted content that a manifest still references")
        return dropping(retired)
    if kind == "blob":
        return _purging_blob(run, retired, trashed, name, digest)
    await _purge_manifest(run, retired, trashed, name, digest)
    return None


def _purging_blob(run: Run, retired: ObjectInfo, trashed: ObjectInfo, name: str, digest: Digest) -> Decision:
    steps: list[AnyOperation] = [
        DeleteOperation(retired.path, missing_ok=True),
        DeleteOperation(trashed.path, if_generation=trashed.generation),
        *disowning(digest, "blob", name, run.now_ms),
    ]
    return Decision(steps, "purged_blobs")


async def _purge_manifest(
    run: Run, retired: ObjectInfo, trashed: ObjectInfo, name: str, digest: Digest
) -> None:
    try:
        _, data = await run.store.read(blob_path(digest), run.manifest_bytes_max)
    except NotFound:
        if await run.find(trashed.path) is not None:
            run.report.problem(f"manifest {digest} in the trash of {name} has no bytes in the catalog")
        return
    manifest = parse_manifest(data, trashed.attributes["mediaType"])
    # A large push of the same manifest that is under way must begin anew: its uses are taken away.
    no_push = DeleteOperation(pending_path(name, digest), missing_ok=True)
    is_same = CheckOperation(trashed.path, trashed.generation)
    async for batch in letting_go(run.store, name, manifest, digest, run.now_ms):
        if not await run.attempt([is_same, no_push, *batch]):
            return
    await _mark_referrers(run, name, digest)
    last: list[AnyOperation] = [
        DeleteOperation(trashed.path, if_generation=trashed.generation),
        DeleteOperation(retired.path, missing_ok=True),
        no_push,
        DeleteOperation(untagged_path(name, digest), missing_ok=True),
        *disowning(digest, "manifest", name, run.now_ms),
    ]
    if await run.attempt(last):
        run.report.purged_manifests += 1
        await _remove_if_empty(run, name)


async def _mark_referrers(run: Run, name: str, subject: Digest) -> None:
    """What was about this manifest may have no reason to stay."""
    steps: list[AnyOperation] = []
    async for info in run.entries(referrers_prefix(name, subject)):
        steps.append(mark(untagged_path(name, parse_digest(info.attributes["digest"])), run.now_ms))
        if len(steps) == _REFERRERS_PER_COMMIT:
            await run.attempt(steps)
            steps = []
    if steps:
        await run.attempt(steps)


async def _remove_if_empty(run: Run, name: str) -> None:
    """Take a repository from the list of all when it has no manifest, not even in the trash."""
    entry = await run.find(name_path(name))
    if entry is None or run.dry_run:
        return
    for prefix in (manifest_links_prefix(name), trash_prefix(name, "manifest")):
        if await run.has_any(prefix):
            return
    if await run.attempt([DeleteOperation(entry.path, if_generation=entry.generation)]):
        run.report.removed_repositories += 1
