"""Manifests that nothing names: moved to the trash, where the policy says so.

A manifest stays while a tag names it, or a state of a tag that can still be restored; while an index of
the repository references it; and while the manifest that it is about (its subject) is here or in the
trash.  When the last of these reasons goes, whoever ends it sets the mark again.
"""

from __future__ import annotations

from fabric.driver.registry.bookkeeping import (
    UNTAGGED_PREFIX,
    marked,
    since_ms,
    tagged_prefix,
    trash_path,
    uses_prefix,
)
from fabric.driver.registry.collection import COLLECTOR, Decision, Run, dropping
from fabric.driver.registry.manifest_store import unlinking
from fabric.driver.registry.names import Digest, manifest_link_path, parse_digest
from fabric.wire.messages import DeleteOperation, ObjectInfo


async def collect_untagged(run: Run) -> None:
    """Look at every manifest that may have no name.  Raises FabricError of the store."""
    if run.policy.untagged_after_s < 0:
        return
    ripe_ms = run.before_ms(run.policy.untagged_after_s)

    async def decide(mark: ObjectInfo) -> Decision | None:
        if since_ms(mark) > ripe_ms:
            run.report.keep("manifests without a tag, not old enough")
            return None
        name, digest = marked(mark.path, UNTAGGED_PREFIX)
        link = await run.find(manifest_link_path(name, digest))
        if link is None or await _is_needed(run, name, digest, link):
            return dropping(mark)
        stamp = run.stamper.stamp(COLLECTOR)
        drop = DeleteOperation(mark.path, if_generation=mark.generation)
        return Decision([drop, *unlinking(name, digest, link, stamp)], "trashed_manifests")

    await run.look_at(UNTAGGED_PREFIX, decide)


async def _is_needed(run: Run, name: str, digest: Digest, link: ObjectInfo) -> bool:
    """Looked at after the link's generation was seen: each new reason raises it."""
    if await run.has_any(tagged_prefix(name, digest)) or await run.has_any(uses_prefix(name, digest)):
        return True
    if "subject" not in link.attributes:
        return False
    subject = parse_digest(link.attributes["subject"])
    for path in (manifest_link_path(name, subject), trash_path(name, "manifest", subject)):
        if await run.find(path) is not None:
            return True
    return False
