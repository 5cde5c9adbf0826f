"""What replicas hold, held against what the catalog names.

A chunk server lists its fragments, page by page.  A fragment that nothing names is an orphan when its fid is
below the horizon: it was stored and never committed, or its deletion was lost.  It goes on the to-delete
list of every member of its group, whoever found it.  A fragment that is named and not on the list is
missing there: the server is told what it is, and asks its peers.

The horizon moves in the same transaction that condemns what is below it (see ``fids``), so no commit can
come between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from fabric.master import references
from fabric.master.deletion import Deletion
from fabric.master.delta import DeltaStore
from fabric.master.fids import FidLeases
from fabric.wire.messages import Audited, AuditFragments, BucketEntry

MISSING_MAX = 1_000
"""Told in one answer; the next audit finds the rest."""


class Verdict(msgspec.Struct, frozen=True):
    """The answer, and what to call once the delta is durable."""

    answer: Audited
    on_durable: Callable[[], None]


class Audits:
    """Judges pages, and remembers what came of them."""

    def __init__(self, deletion: Deletion, fids: FidLeases) -> None:
        self._deletion = deletion
        self._fids = fids
        self.orphans_freed = 0
        """Put on to-delete lists since the master's start."""
        self.missing: Counter[str] = Counter()
        """By server: named by the catalog and not held there, since its audit began."""

    def judge(self, delta: DeltaStore, page: AuditFragments, now: float) -> Verdict:
        """Compare one page with the catalog."""
        last = page.fids[-1] if page.more and page.fids else None
        limit = len(page.fids) + MISSING_MAX
        named = references.in_bucket(delta, page.group, page.bucket, page.after, last, limit)
        held = set(page.fids)
        missing = [reference for reference in named if reference.fid not in held]
        # More are named than were read: what lies behind the last of them is not known.
        known_to = named[-1].fid if len(named) == limit else None
        horizon = self._fids.move_horizon(delta, now)
        alive = {reference.fid for reference in named}
        orphans = [
            fid
            for fid in page.fids
            if fid not in alive and fid < horizon and (known_to is None or fid <= known_to)
        ]
        ordered = self._deletion.order(delta, page.group, orphans)

        def on_durable() -> None:
            ordered()
            self.orphans_freed += len(orphans)
            if page.bucket == 0 and page.after == 0:
                self.missing[page.server] = 0
            self.missing[page.server] += len(missing)

        return Verdict(Audited(self._entries(delta, page.group, missing), len(orphans)), on_durable)

    def _entries(
        self, delta: DeltaStore, group: int, missing: list[references.Reference]
    ) -> list[BucketEntry]:
        found = (references.fragment(delta, group, reference) for reference in missing[:MISSING_MAX])
        return [BucketEntry(f.fid, f.length, f.checksum) for f in found if f is not None]
