"""P4: after healing, all replicas of a group hold equal maps of fid to checksum.

Held to the letter for every fragment that was committed.  Fragments that nobody committed (a proxy died
between store and abort) may be on some members only; until garbage of that kind is collected, no two members
may hold different bytes under one such fid.
"""

from __future__ import annotations

from sim.checkers.ledger import Ledger
from sim.watcher import Violation


class Equal(Ledger):
    """Compares what the engines of each group hold."""

    def at_end(self) -> None:
        for group in self.cluster.groups():
            hosts = self.cluster.members(group)
            maps = {host.name: host.live() for host in hosts}
            for fid in sorted(set().union(*maps.values())):
                seen = {name: held.get(fid) for name, held in maps.items()}
                values = {value for value in seen.values() if value is not None}
                if len(values) > 1:
                    raise Violation("P4", f"fid {fid} of group {group} differs: {seen}")
                known = self.known.get(fid)
                if known is not None and known.committed_at >= 0 and None in seen.values():
                    raise Violation("P4", f"fid {fid} of group {group} is committed, not everywhere: {seen}")
            for fid, known in self.known.items():
                if known.ref.group == group and known.committed_at >= 0 and not known.doomed:
                    self._check_present(fid, (known.ref.length, known.ref.checksum), maps)

    def _check_present(
        self, fid: int, value: tuple[int, int], maps: dict[str, dict[int, tuple[int, int]]]
    ) -> None:
        seen = {name: held.get(fid) for name, held in maps.items()}
        if set(seen.values()) != {value}:
            raise Violation("P4", f"fid {fid} should be {value} everywhere: {seen}")
