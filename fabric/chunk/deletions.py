"""Deletions that the master ordered: each assignment repeats them until a heartbeat confirmed them.

So nothing is remembered beyond the last assignment: what it orders is either durable here, or under way,
or to be begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Deletions:
    """What the last assignment ordered, and how far it is."""

    def __init__(self) -> None:
        self._ordered: dict[int, None] = {}
        self._under_way: set[int] = set()
        self._durable: set[int] = set()

    @property
    def is_done(self) -> bool:
        """Everything that was ordered has a durable tombstone."""
        return len(self._durable) == len(self._ordered)

    def is_pending(self, fid: int) -> bool:
        """Is its deletion ordered, and not durable here yet?"""
        return fid in self._ordered and fid not in self._durable

    def order(self, fids: Sequence[int]) -> Iterable[int]:
        """Take over an assignment's list; returns those to begin now."""
        self._ordered = dict.fromkeys(fids)
        self._durable.intersection_update(self._ordered)
        begin = [fid for fid in self._ordered if fid not in self._durable and fid not in self._under_way]
        self._under_way.update(begin)
        return begin

    def finish(self, fid: int, durable: bool) -> bool:
        """The tombstone is written, or could not be; True when it was the last one under way."""
        self._under_way.discard(fid)
        if durable and fid in self._ordered:
            self._durable.add(fid)
        return not self._under_way

    def confirmed(self) -> list[int]:
        """Of the last assignment's list, those with durable tombstones."""
        return [fid for fid in self._ordered if fid in self._durable]
