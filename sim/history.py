"""What clients did, and what each path may therefore hold.

Each path has one writer, so at every moment there is a set of values that it may have: one, once the last
write's outcome is known; more, while one is under way or when its outcome will never be known.  A reader
may see any value that was possible at some moment of its read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from typing import TypeAlias

    from sim.world import World

Value: TypeAlias = "bytes | None"
"""What a path holds; None: nothing."""


class PathState(msgspec.Struct, eq=False):
    """One path."""

    path: str
    immutable: bool = False
    possible: set[bytes | None] = msgspec.field(default_factory=lambda: {None})
    ever: set[bytes | None] = msgspec.field(default_factory=lambda: {None})
    """Every value that it was possible to have."""
    reading: list[set[bytes | None]] = msgspec.field(default_factory=list)
    """What each read under way may see."""
    busy: bool = False
    strict: bool = False
    """All caches must know by now."""
    lost: bool = False
    """The outcome of a write will never be known: it is not written any more."""

    def begin(self, value: bytes | None) -> None:
        """A write of this value is under way."""
        self.busy = True
        self.possible.add(value)
        self.ever.add(value)
        for allowed in self.reading:
            allowed.add(value)

    def acknowledge(self, value: bytes | None) -> None:
        """It is done."""
        self.busy = False
        self.possible = {value}

    def refuse(self, value: bytes | None, before: set[bytes | None]) -> None:
        """It was certainly not done."""
        self.busy = False
        self.possible = before

    def give_up(self) -> None:
        """It may be done, or not."""
        self.busy, self.lost = False, True

    def begin_read(self) -> set[bytes | None]:
        """The set of what this read may see; give it to ``end_read``."""
        # A proxy may serve an immutable object from its cache for a while after it was removed.
        allowed = set(self.ever) if self.immutable and not self.strict else set(self.possible)
        self.reading.append(allowed)
        return allowed

    def end_read(self, allowed: set[bytes | None]) -> None:
        """The read is over."""
        self.reading = [other for other in self.reading if other is not allowed]

    @property
    def value(self) -> bytes | None:
        """The one value, when it is certain."""
        (value,) = self.possible
        return value

    @property
    def is_certain(self) -> bool:
        """Is there one possible value?"""
        return len(self.possible) == 1 and not self.busy and not self.lost


class History:
    """All paths, and counts of what clients did."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begun = 0
        """Things that clients began to do."""
        self.begun_max: int | None = None
        """So many of them; None: no limit."""
        self.paths: dict[str, PathState] = {}
        self.acknowledged = self.refused = self.unknown = 0
        self.reads = self.failed_reads = 0

    def begin(self) -> bool:
        """May a client do one more thing?"""
        if self.begun_max is not None and self.begun >= self.begun_max:
            return False
        self.begun += 1
        return True

    def state(self, path: str, immutable: bool = False) -> PathState:
        """A path, new or known."""
        found = self.paths.get(path)
        if found is None:
            found = self.paths[path] = PathState(path, immutable)
        return found
