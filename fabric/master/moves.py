"""Which fragments are to lie in another group: handed out to proxies, which carry them.

A source is a group and what is to leave it: everything (it is drained), or so many bytes for one other group
(a shift).  Fragments are handed out in the order of the references, round and round, so whatever a proxy has
not moved within its lease is handed out again, and so is what came meanwhile.  Handing out is paced, so that
over any while the moved bytes stay within the rate.

Nothing here is durable: what must move follows from the groups, the tasks and the references.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fabric.master import keys, references
from fabric.master.store import Reader
from fabric.settings import FRAGMENTS_PER_PAGE_MAX, UPKEEP_RECORD_BYTES
from fabric.wire.messages import FragmentRef, Move

LEASE_S = 40.0
"""A fragment that was handed out and not moved by then is handed out again."""
SCAN_MAX = 256
"""References looked at for one answer."""
IDLE_S = 1.0
"""Until a proxy should ask again when there was nothing to hand out."""
HANDED_MAX = 4_096
"""Of one source, handed out at any time."""


class Source(msgspec.Struct):
    """What is to leave ``group``."""

    group: int
    target: int
    """0: any other group, and everything is to leave."""
    left_bytes: int = 0
    """Of a shift: bytes that are not moved yet."""
    place: bytes = b""
    handed: dict[int, tuple[float, int]] = msgspec.field(default_factory=dict)
    """fid -> when it may be handed out again, and its length."""

    def room_bytes(self) -> int:
        """What may be handed out now."""
        if len(self.handed) >= HANDED_MAX:
            return 0
        if not self.target:
            return 2**62
        return self.left_bytes - sum(length for _, length in self.handed.values())

    def expire(self, now: float) -> None:
        """Forget what was handed out and not moved."""
        late = [fid for fid, (expires_at, _) in self.handed.items() if expires_at <= now]
        for fid in late:
            del self.handed[fid]


class Moves:
    """All sources."""

    def __init__(self, store: Reader, bytes_per_s: int) -> None:
        self._store = store
        self.bytes_per_s = bytes_per_s
        self._sources: dict[tuple[int, int], Source] = {}
        self._next_at = 0.0
        self.asked_at = float("-inf")
        """When a proxy asked last."""

    @property
    def is_any(self) -> bool:
        """Is there anything to be moved?"""
        return bool(self._sources)

    def set_sources(self, wanted: Iterable[tuple[int, int, int]]) -> None:
        """These are the sources now, as (group, target, bytes left); of those that stay all is remembered."""
        before, self._sources = self._sources, {}
        for group, target, left_bytes in wanted:
            source = before.get((group, target)) or Source(group, target)
            source.left_bytes = left_bytes
            self._sources[group, target] = source

    def take(self, room_bytes: int, now: float) -> tuple[list[Move], float]:
        """What a proxy that has room for so many bytes is to move, and for how long it should then pause.

        At least one fragment, however large, when any is due.
        """
        self.asked_at = now
        if now < self._next_at:
            return [], self._next_at - now
        moves: list[Move] = []
        for source in sorted(self._sources.values(), key=lambda source: len(source.handed)):
            source.expire(now)
            moves += self._take_from(source, room_bytes - _bytes(moves), bool(moves), now)
        if not moves:
            return [], IDLE_S
        cost = _bytes(moves) + len(moves) * UPKEEP_RECORD_BYTES
        self._next_at = max(self._next_at, now) + cost / self.bytes_per_s
        return moves, 0.0

    def moved(self, fragments: Iterable[FragmentRef], targets: Iterable[FragmentRef]) -> None:
        """Objects name the targets now."""
        for old, new in zip(fragments, targets, strict=True):
            for key in ((old.group, 0), (old.group, new.group)):
                source = self._sources.get(key)
                if source is not None and source.handed.pop(old.fid, None) is not None:
                    source.left_bytes -= old.length

    def _take_from(self, source: Source, room_bytes: int, is_more: bool, now: float) -> list[Move]:
        found, end = references.of_group(self._store, source.group, source.place, SCAN_MAX)
        if not found and source.place:
            found, end = references.of_group(self._store, source.group, b"", SCAN_MAX)
        moves: list[Move] = []
        room_bytes = min(room_bytes, source.room_bytes())
        for reference in found:
            fragment = self._movable(source, reference)
            if fragment is not None:
                if (is_more or moves) and fragment.length > room_bytes:
                    return moves
                if room_bytes <= 0 or len(moves) >= FRAGMENTS_PER_PAGE_MAX // max(1, len(self._sources)):
                    return moves
                room_bytes -= fragment.length
                source.handed[reference.fid] = now + LEASE_S, fragment.length
                moves.append(Move(fragment, source.target))
            source.place = keys.reference_key(source.group, reference.fid)
        if not end:
            source.place = b""
        return moves

    def _movable(self, source: Source, reference: references.Reference) -> FragmentRef | None:
        """The fragment, unless it is on its way or its object is deleted."""
        if reference.fid in source.handed:
            return None
        if self._store.get(keys.doomed_key(reference.object_id)) is not None:
            return None
        return references.fragment(self._store, source.group, reference)


def _bytes(moves: Iterable[Move]) -> int:
    return sum(move.fragment.length for move in moves)
