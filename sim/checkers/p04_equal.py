"""P4: after healing, all replicas of a group hold equal maps of fid to checksum.

To the letter once orphans were searched for.  Until then a fragment that nobody committed (a proxy died
between store and abort) may be on some members only; but what was committed, and not let go, must be on all.
"""

from __future__ import annotations

from sim.checkers.ledger import Ledger
from sim.watcher import Violation


class Equal(Ledger):
    """Compares what the engines of each group hold."""

    def at_end(self) -> None:
        for group in self.cluster.groups():
            maps = {host.name: host.live() for host in self.cluster.members(group)}
            for fid in sorted(set().union(*maps.values())):
                seen = {name: held.get(fid) for name, held in maps.items()}
                values = set(seen.values())
                known = self.known.get(fid)
                if not (self.cluster.searched or (known is not None and known.committed_at >= 0)):
                    values.discard(None)
                if len(values) > 1:
                    raise Violation("P4", f"fid {fid} of group {group} differs: {seen}")
            for fid, known in self.known.items():
                if known.ref.group == group and known.committed_at >= 0 and not known.doomed:
                    self._check_present(fid, (known.ref.length, known.ref.checksum), maps)

    def _check_present(
        self, fid: int, value: tuple[int, int], maps: dict[str, dict[int, tuple[int, int]]]
    ) -> None:
        seen = {name: held.get(fid) for name, held in maps.items()}
        if set(seen.values()) != {value}:
            raise Violation("P4", f"fid {fid} should be {value} everywhere: {seen}")
