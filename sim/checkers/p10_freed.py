"""P10: unreferenced space is found and freed while pushes go on.

Checked of what was deleted: the master has no deletes left to be done, and no server holds a fragment of
them.  That fragments which were never committed are found has no code yet, and no check; the number of
those that are left is counted, so that it can become one.
"""

from __future__ import annotations

from typing import Any

from sim.checkers.ledger import Ledger
from sim.watcher import Violation


class Freed(Ledger):
    """Looks at what is left when all is quiet."""

    def __init__(self) -> None:
        super().__init__()
        self.orphans = 0

    def at_end(self) -> None:
        built: Any = self.cluster.master.process.built
        left = built.role._deletion.total()
        if left:
            raise Violation("P10", f"{left} deletes are left to be done when all is quiet")
        gone = {fid for fid, known in self.known.items() if known.gone_at >= 0}
        for host in self.cluster.chunks.values():
            live = host.live()
            kept = gone & live.keys()
            if kept:
                raise Violation(
                    "P10", f"{host.name} still holds fragments of deleted objects: {sorted(kept)}"
                )
            self.orphans += sum(1 for fid in live if not self._may_be_named(fid))

    def _may_be_named(self, fid: int) -> bool:
        known = self.known.get(fid)
        return known is not None and known.gone_at < 0
