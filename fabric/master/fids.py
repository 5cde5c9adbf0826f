"""Fids: leased in ranges, never given twice.

The high-water mark is durable before a range is told to anybody, so whatever happens between the
two, the fids of that range are lost rather than given again.  A lease is a promise about commits:
while it lives, a commit may name its fids; afterwards none may, so fragments that no commit has named
by then are garbage for certain.  Leases are kept in memory.  After a restart nobody knows them, and
every fid from the horizon to the high-water mark counts as leased for one more lease time.

The *horizon* is durable too: all fids below it have expired, and no restart brings them back.  What no
object names below it is an orphan for ever.

While a lease lives, a bit for each of its fids tells whether a commit named it: a fragment must not
become part of two objects, because deleting one would take it from the other.  This catches mistakes
of callers; it is not durable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from fabric.errors import Busy
from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.store import Reader

FID_FIRST = 1
FID_MAX = 2**64 - 1
LEASES_MAX = 100_000
"""Live leases; more are refused for a moment."""
_BITS = 12


class _Lease(msgspec.Struct):
    first: int
    end: int
    expires_at: float
    used: dict[int, bytearray] = {}
    """Bits of used fids, in pieces of 2**_BITS fids, made when needed."""


class FidLeases:
    """The high-water mark and the living leases."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self.high_water = FID_FIRST
        """Fids from here on were never leased."""
        self.horizon = FID_FIRST
        """Fids below it have expired, whatever happens."""
        self._granted_to = FID_FIRST
        self._leases: list[_Lease] = []
        self._firsts: list[int] = []

    def load(self, store: Reader, now: float) -> None:
        """Take up the high-water mark; everything below it lives once more."""
        value = store.get(keys.FIDS)
        if value is None:
            return
        self.high_water = self._granted_to = keys.to_number(value)
        horizon = store.get(keys.HORIZON)
        if horizon is not None:
            self.horizon = keys.to_number(horizon)
        if self.horizon < self.high_water:
            self.grant(self.horizon, self.high_water - self.horizon, now)

    def reserve(self, delta: DeltaStore, count: int, now: float) -> int:
        """Move the high-water mark; returns the first fid of the range, not to be told before the
        delta is durable.  Raises Busy."""
        self._expire(now)
        first = self.high_water
        if len(self._leases) >= LEASES_MAX or first + count > FID_MAX:
            raise Busy("too many ranges of fids are leased")
        self.high_water = first + count
        delta.put(keys.FIDS, keys.number(self.high_water))
        return first

    def grant(self, first: int, count: int, now: float) -> None:
        """The range is durable: its lease begins.  Ranges come in rising order."""
        self._leases.append(_Lease(first, first + count, now + self._lease_s))
        self._firsts.append(first)
        self._granted_to = first + count

    def move_horizon(self, delta: DeltaStore, now: float) -> int:
        """Take it as far as leases have run out; returns it.  It holds once the delta is durable.

        A range that is reserved and not granted yet lies behind it.
        """
        self._expire(now)
        reached = self._leases[0].first if self._leases else self._granted_to
        if reached > self.horizon:
            self.horizon = reached
            delta.put(keys.HORIZON, keys.number(reached))
        return self.horizon

    def is_live(self, fid: int, now: float) -> bool:
        """May a commit name this fid?"""
        lease = self._find(fid)
        return lease is not None and now < lease.expires_at

    def is_used(self, fid: int) -> bool:
        """Has a commit of this life of the master named it?"""
        lease = self._find(fid)
        piece = lease.used.get(fid >> _BITS) if lease is not None else None
        if piece is None:
            return False
        bit = fid & ((1 << _BITS) - 1)
        return bool(piece[bit >> 3] & (1 << (bit & 7)))

    def mark_used(self, fids: Iterable[int]) -> None:
        """A commit named these."""
        for fid in fids:
            lease = self._find(fid)
            if lease is None:
                continue
            piece = lease.used.get(fid >> _BITS)
            if piece is None:
                piece = lease.used[fid >> _BITS] = bytearray(1 << (_BITS - 3))
            bit = fid & ((1 << _BITS) - 1)
            piece[bit >> 3] |= 1 << (bit & 7)

    def _find(self, fid: int) -> _Lease | None:
        index = bisect_right(self._firsts, fid) - 1
        if index < 0:
            return None
        lease = self._leases[index]
        return lease if fid < lease.end else None

    def _expire(self, now: float) -> None:
        """Leases end in the order in which they began."""
        living = 0
        while living < len(self._leases) and self._leases[living].expires_at <= now:
            living += 1
        if living:
            del self._leases[:living]
            del self._firsts[:living]
