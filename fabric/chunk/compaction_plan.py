"""Which data files to compact: a pure choice."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

SMALL_FILES_MAX = 8
"""So many small files may lie about; then they are merged, although they hold little garbage."""
SMALL_SHARE = 4
"""A file is small below this part of the largest size (a quarter)."""


class Candidate(msgspec.Struct, frozen=True):
    """A sealed data file."""

    number: int
    data_bytes: int
    """Of its records, dead ones included."""
    live_bytes: int
    """Of the records that must be kept."""

    @property
    def garbage_bytes(self) -> int:
        return max(0, self.data_bytes - self.live_bytes)

    @property
    def garbage_ratio(self) -> float:
        """An empty file is all garbage."""
        return self.garbage_bytes / self.data_bytes if self.live_bytes else 1.0


def choose(
    candidates: Iterable[Candidate], *, garbage_ratio: float, bytes_max: int, room_bytes: int
) -> list[Candidate]:
    """The files whose live records become one new file; none when nothing is worth it.

    Those with a share of garbage of at least ``garbage_ratio``, the worst first, as many as fit into
    ``bytes_max``; small files join them.  ``room_bytes``: what may be written before anything is freed.
    """
    ordered = sorted(candidates, key=lambda candidate: (-candidate.garbage_ratio, candidate.number))
    small = [candidate for candidate in ordered if candidate.data_bytes < bytes_max // SMALL_SHARE]
    worth = [
        candidate
        for candidate in ordered
        if not candidate.live_bytes or (candidate.garbage_bytes and candidate.garbage_ratio >= garbage_ratio)
    ]
    if len(small) > SMALL_FILES_MAX:
        worth += [candidate for candidate in small if candidate not in worth]
    if not worth:
        return []
    joining = [candidate for candidate in small if candidate not in worth]
    chosen: list[Candidate] = []
    room = min(bytes_max, room_bytes)
    for candidate in [*worth, *joining]:
        if candidate.live_bytes <= room:
            chosen.append(candidate)
            room -= candidate.live_bytes
    # Small files alone give nothing back.
    return chosen if any(candidate in worth for candidate in chosen) else []
