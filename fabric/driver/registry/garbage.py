"""Online garbage collection: one pass, by any registry process, beside all pushes and other passes.

The order of the parts follows a deletion to its end, so that one pass can go all the way when nothing
has to wait: a manifest goes from the trash, its blobs have no use, their links end, their bytes have no
owner.  Why that is safe is told in ``bookkeeping``.
"""

from __future__ import annotations

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.abandoned import discard_parts, discard_uploads, release_pushes
from fabric.driver.registry.bookkeeping import GARBAGE_PREFIX, Stamper, digest_at, owners_prefix
from fabric.driver.registry.collection import Decision, Pace, Policy, Report, Run, dropping
from fabric.driver.registry.indexing import Indexing, is_indexed
from fabric.driver.registry.loose import collect_loose
from fabric.driver.registry.names import blob_path
from fabric.driver.registry.purge import purge_retired
from fabric.driver.registry.untagged import collect_untagged
from fabric.wire.messages import AnyOperation, DeleteOperation, ObjectInfo

LAST_PASS_PATH = "meta/registry-gc"
"""What the last pass that ended did."""

PARTS = (discard_uploads, discard_parts, collect_untagged, purge_retired, release_pushes, collect_loose)


class GarbageCollection:
    """Runs passes over one store."""

    def __init__(
        self, store: ObjectStore, stamper: Stamper, policy: Policy, manifest_bytes_max: int, pace: Pace
    ) -> None:
        self._store = store
        self._stamper = stamper
        self._policy = policy
        self._bytes_max = manifest_bytes_max
        self._pace = pace

    async def run(self, *, dry_run: bool = False) -> Report:
        """One pass.  Raises FabricError of the store; what was done until then is done.

        A dry run changes nothing.  It tells what is ripe now, not what that would make ripe.
        """
        if dry_run:
            if not await is_indexed(self._store):
                report = Report(self._stamper.wall_ms(), dry_run=True, kept={}, problems=[])
                report.problem("the books of this store are not complete; a pass completes them first")
                return report
        else:
            await Indexing(self._store, self._stamper, self._bytes_max, self._pace.pause).run()
        run = Run(self._store, self._stamper, self._policy, self._bytes_max, self._pace, dry_run=dry_run)
        for part in PARTS:
            await part(run)
        await collect_bytes(run)
        run.report.ended_at_ms = self._stamper.wall_ms()
        if not dry_run:
            text = msgspec.json.encode(run.report).decode()
            await self._store.put(LAST_PASS_PATH, b"", attributes={"report": text})
        return run.report


async def collect_bytes(run: Run) -> None:
    """Remove bytes that nobody owns.  Raises FabricError of the store."""

    async def decide(mark: ObjectInfo) -> Decision | None:
        digest = digest_at(mark.path, GARBAGE_PREFIX)
        if await run.has_any(owners_prefix(digest)):
            run.report.keep("bytes that another repository still links")
            return dropping(mark)
        found = await run.find(blob_path(digest))
        if found is None:
            return dropping(mark)
        steps: list[AnyOperation] = [
            DeleteOperation(mark.path, if_generation=mark.generation),
            DeleteOperation(found.path, if_generation=found.generation),
        ]
        return Decision(steps, "freed", freed_bytes=found.size)

    await run.look_at(GARBAGE_PREFIX, decide)
