"""P3: a fid is never used twice, through any sequence of crashes.

Leases that the master hands out never overlap, each fid is stored with one content by one life of one
proxy, and a commit is confirmed only while the lease of its fids can still run: a later one might name what
was collected as garbage.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from fabric.wire.messages import (
    Commit,
    Committed,
    FidLease,
    Message,
    Moved,
    PutOperation,
    Relocate,
    Relocated,
)
from sim import stores
from sim.process import Process
from sim.watcher import Violation, Watcher

SLACK_S = 0.5
"""From a commit's application to its answer: the store's write."""


class Fids(Watcher):
    """Remembers every lease and every store."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._leases: list[tuple[int, int, float]] = []
        """(first, end, told at), by first."""
        self._stored: dict[int, tuple[str, int, int]] = {}
        self._confirmed: set[bytes] = set()
        self._moved: set[int] = set()
        self._first_named: dict[int, float] = {}
        """Fid -> when the master was first asked to let it be named."""

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        if target.kind == "master" and isinstance(message, Commit | Relocate):
            for fid in _named(message):
                self._first_named.setdefault(fid, self.cluster.world.now)
        if source.kind != "proxy":
            return
        for fragment, _, _ in stores.sent(message, payload):
            now = (source.name, source.incarnation, fragment.checksum)
            before = self._stored.setdefault(fragment.fid, now)
            if before != now:
                raise Violation("P3", f"fid {fragment.fid} is used twice: {before} and {now}")

    def on_reply(
        self,
        server: Process,
        asker: Process,
        request: Message | None,
        payload: Any,
        answer: Message,
        data: Any,
    ) -> None:
        if server.kind != "master":
            return
        if isinstance(answer, FidLease):
            self._add(answer.first, answer.first + answer.count)
        elif isinstance(answer, Committed) and isinstance(request, Commit):
            self._check(request)
        elif isinstance(request, Relocate) and isinstance(answer, Relocated):
            self._check_moves(request.moved, answer.named)

    def _add(self, first: int, end: int) -> None:
        at = bisect_right(self._firsts, first)
        for other in self._leases[max(0, at - 1) : at + 1]:
            if first < other[1] and other[0] < end:
                raise Violation("P3", f"fids {first} to {end} were leased before, in {other}")
        self._firsts.insert(at, first)
        self._leases.insert(at, (first, end, self.cluster.world.now))

    def _check_moves(self, moved: list[Moved], named: list[bool]) -> None:
        for move, is_named in zip(moved, named, strict=True):
            if is_named and move.target.fid not in self._moved:
                self._moved.add(move.target.fid)
                self._check_lease(move.target.fid)

    def _check(self, commit: Commit) -> None:
        if commit.operation_id in self._confirmed:
            return
        self._confirmed.add(commit.operation_id)
        for fid in _named(commit):
            self._check_lease(fid)

    def _check_lease(self, fid: int) -> None:
        # Done by the first try, perhaps, whose answer was lost.
        settings, now = self.cluster.settings, self._first_named[fid]
        at = bisect_right(self._firsts, fid) - 1
        if at < 0 or fid >= self._leases[at][1]:
            raise Violation("P3", f"a commit of fid {fid}, which was never leased, is confirmed")
        # A master that starts anew lets all leases live once more.
        begun = max(self._leases[at][2], self.cluster.master.started_at)
        if now > begun + settings.fid_lease_s + SLACK_S:
            late_s = now - begun - settings.fid_lease_s
            raise Violation("P3", f"fid {fid} is committed {late_s:.1f} s after its lease ended")


def _named(message: Commit | Relocate) -> list[int]:
    """Fids that objects are to name by this."""
    if isinstance(message, Relocate):
        return [move.target.fid for move in message.moved]
    puts = [operation for operation in message.operations if isinstance(operation, PutOperation)]
    return [ref.fid for operation in puts for ref in operation.fragments]
