"""What is known of every fragment, from the messages alone.

A fragment is *acknowledged* when a proxy has told a client so, *committed* when the master has told a proxy
so.  One that is acknowledged and not committed *counts* until the lease of its fid is over; then it may be
collected as garbage.  A fragment is *doomed* from the moment that a commit which would remove its object is
sent, since that may take effect whatever its sender hears; it is *gone* when that commit was confirmed.

A fragment that is moved to another group has another fid there, its *heir*.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import msgspec

from fabric.wire.messages import (
    AppendOperation,
    Commit,
    Committed,
    DeleteOperation,
    FidLease,
    FragmentRef,
    Message,
    Moved,
    MoveOperation,
    PutFragment,
    PutOperation,
    Relocate,
    Relocated,
    Stored,
)
from sim.process import Process
from sim.watcher import Watcher


class Known(msgspec.Struct, eq=False):
    """One fragment."""

    ref: FragmentRef
    acknowledged_at: float = -1.0
    committed_at: float = -1.0
    doomed: bool = False
    gone_at: float = -1.0


class Ledger(Watcher):
    """To be inherited by checkers that need it."""

    def __init__(self) -> None:
        self.known: dict[int, Known] = {}
        self.objects: dict[str, list[int]] = {}
        """Path -> fids, of what is committed there; paths with operations in doubt have more."""
        self._lease_firsts: list[int] = []
        self._lease_ends: list[float] = []
        """Until when the fids from the first one on, up to the next first one, are leased at least."""
        self._operations: dict[bytes, list[int]] = {}
        """Operation id -> the fids that its first try named."""
        self._heirs: dict[int, set[int]] = {}
        """Fid -> those under which its bytes may be named since it was moved."""
        self._doubtful: set[bytes] = set()
        """Operations whose tries named different fragments: nobody can tell which were committed."""
        self._confirmed: set[bytes] = set()

    def fragment(self, ref: FragmentRef) -> Known:
        """What is known of it, from now on."""
        return self.known.setdefault(ref.fid, Known(ref))

    def counts(self, fid: int) -> bool:
        """Must every member of its group hold it, when the group is well?"""
        known = self.known.get(fid)
        if known is None or known.doomed:
            return False
        return known.committed_at >= 0 or (known.acknowledged_at >= 0 and not self._lease_is_over(fid))

    def _lease_is_over(self, fid: int) -> bool:
        at = bisect_right(self._lease_firsts, fid) - 1
        return at >= 0 and self.cluster.world.now >= self._lease_ends[at]

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        if target.kind == "master" and isinstance(message, Relocate):
            for move in message.moved:
                self.fragment(move.source).doomed = True
                self._heirs.setdefault(move.source.fid, set()).add(self.fragment(move.target).ref.fid)
        if target.kind != "master" or not isinstance(message, Commit):
            return
        fids: list[int] = []
        for operation in message.operations:
            if isinstance(operation, PutOperation | DeleteOperation):
                self._doom(operation.path)
            elif isinstance(operation, MoveOperation):
                self._doom(operation.target)
            if isinstance(operation, PutOperation | AppendOperation):
                fids += [self.fragment(ref).ref.fid for ref in operation.fragments]
        if self._operations.setdefault(message.operation_id, fids) != fids:
            self._doubtful.add(message.operation_id)
            for fid in [*fids, *self._operations[message.operation_id]]:
                self.known[fid].doomed = True

    def on_reply(
        self,
        server: Process,
        asker: Process,
        request: Message | None,
        payload: Any,
        answer: Message,
        data: Any,
    ) -> None:
        now = self.cluster.world.now
        if isinstance(answer, Stored) and isinstance(request, PutFragment):
            self.fragment(answer.fragment).acknowledged_at = now
        elif server.kind == "master" and isinstance(answer, FidLease):
            at = bisect_right(self._lease_firsts, answer.first)
            self._lease_firsts.insert(at, answer.first)
            self._lease_ends.insert(at, now + self.cluster.settings.fid_lease_s)
        elif server.kind == "master" and isinstance(request, Commit) and isinstance(answer, Committed):
            self._confirm(request, now)
        elif isinstance(request, Relocate) and isinstance(answer, Relocated):
            for move, is_named in zip(request.moved, answer.named, strict=True):
                if is_named:
                    self._confirm_move(move, now)

    def _confirm_move(self, move: Moved, now: float) -> None:
        source, target = self.known[move.source.fid], self.fragment(move.target)
        for path, fids in self.objects.items():
            if source.ref.fid in fids:
                self.objects[path] = [target.ref.fid if fid == source.ref.fid else fid for fid in fids]
                target.committed_at, source.gone_at = now, now

    def _doom(self, path: str) -> None:
        left = list(self.objects.get(path, ()))
        while left:
            fid = left.pop()
            self.known[fid].doomed = True
            left += [heir for heir in self._heirs.get(fid, ()) if not self.known[heir].doomed]

    def _confirm(self, commit: Commit, now: float) -> None:
        if commit.operation_id in self._confirmed:
            return
        self._confirmed.add(commit.operation_id)
        (operation,) = commit.operations
        if isinstance(operation, PutOperation | DeleteOperation):
            self._let_go(operation.path, now)
        if isinstance(operation, MoveOperation):
            self.objects[operation.target] = self.objects.pop(operation.source, [])
        if isinstance(operation, PutOperation) and commit.operation_id not in self._doubtful:
            self.objects[operation.path] = [ref.fid for ref in operation.fragments]
            for ref in operation.fragments:
                self.fragment(ref).committed_at = now

    def _let_go(self, path: str, now: float) -> None:
        for fid in self.objects.pop(path, ()):
            known = self.known[fid]
            known.doomed, known.gone_at = True, now
