"""Where fragments lie in files, as chunk servers have said: a hint for those who can read them.

A place may be out of date: compaction moves records.  Whoever reads there checks the bytes, asks for
them in the usual way when they are not right, and so has the place forgotten.
"""

from __future__ import annotations

import sys
from collections import OrderedDict

PLACES_MAX = 50_000
"""Some 300 bytes each."""


class Places:
    """Fid -> path of a file and offset of the payload, for one machine; least recently used go first."""

    def __init__(self, places_max: int = PLACES_MAX) -> None:
        self._places: OrderedDict[int, tuple[str, tuple[str, int]]] = OrderedDict()
        self._places_max = places_max

    def __len__(self) -> int:
        return len(self._places)

    def find(self, fid: int, near: str) -> tuple[str, int] | None:
        """Where it was last, for somebody on the machine ``near``."""
        found = self._places.get(fid)
        if found is None or found[0] != near:
            return None
        self._places.move_to_end(fid)
        return found[1]

    def keep(self, fid: int, near: str, file: str, position: int) -> None:
        """It is there now, on that machine."""
        self._places[fid] = (sys.intern(near), (sys.intern(file), position))  # few names, of many places
        self._places.move_to_end(fid)
        if len(self._places) > self._places_max:
            self._places.popitem(last=False)

    def forget(self, fid: int) -> None:
        """Somebody did not find it there."""
        self._places.pop(fid, None)
