"""P10: unreferenced space is found and freed while pushes go on.

When all is quiet the master has no deletes left to be done, and no server holds a fragment of what was
deleted.  A run that ends with a search for orphans leaves none: every fragment that any member holds is named
by the catalog.  A group that was drained names none, and its members hold nothing.
"""

from __future__ import annotations

from fabric.master import references
from fabric.settings import BUCKETS
from sim.checkers.ledger import Ledger
from sim.watcher import Violation


class Freed(Ledger):
    """Looks at what is left when all is quiet."""

    def at_end(self) -> None:
        left = self.cluster.master.process.role._deletion.total()
        if left:
            raise Violation("P10", f"{left} deletes are left to be done when all is quiet")
        gone = {fid for fid, known in self.known.items() if known.gone_at >= 0}
        for group in self.cluster.groups():
            named = self._named(group)
            if self.cluster.masters_groups[group].draining and named:
                raise Violation("P10", f"group {group} was drained, and objects still name {sorted(named)}")
            for host in self.cluster.members(group):
                held = host.live().keys()
                if kept := gone & held:
                    raise Violation("P10", f"{host.name} still holds deleted fragments: {sorted(kept)}")
                if self.cluster.searched and (orphans := held - named):
                    raise Violation("P10", f"{host.name} holds what nothing names: {sorted(orphans)}")

    def _named(self, group: int) -> set[int]:
        store = self.cluster.master.store
        return {
            reference.fid
            for bucket in range(BUCKETS)
            for reference in references.in_bucket(store, group, bucket, 0, None, 10_000)
        }
