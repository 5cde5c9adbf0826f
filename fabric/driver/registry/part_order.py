"""Where the parts of an upload belong, what follows on what, and what is missing.

An upload is one object that grows from its beginning: the *prefix*.  A part that begins at its end is
joined to it.  Any other waits; when the prefix reaches it, it is joined as well.  So the parts that wait
lie behind the prefix, with gaps before them, and no two share a byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fabric.driver.registry.ranges import ByteRange
from fabric.settings import FRAGMENT_BYTES_MAX, GIB, JOINED_FRAGMENTS_MAX

PART_UNIT_BYTES = FRAGMENT_BYTES_MAX
"""Parts begin at multiples of this, so that all fragments of a blob but the last are full."""

PART_BYTES_MAX = 4 * GIB
"""One part; a commit must be able to join it."""

WAITING_MAX = 999
"""Parts that wait; less than a page of names."""

JOINS_MAX = 64
"""Parts that are joined in one commit."""

BLOB_BYTES_MAX = 2**62
"""What a size may be on the wire."""

assert PART_BYTES_MAX // FRAGMENT_BYTES_MAX <= JOINED_FRAGMENTS_MAX


@dataclass(frozen=True, slots=True)
class Claim:
    """Which process computes the digest of an upload, and until when the others leave it to it."""

    process: str
    until_ms: int
    """Wall clock.  Clocks that differ cost a second computation, nothing else."""

    def __str__(self) -> str:
        return f"{self.process} {self.until_ms}"


NOBODY = Claim("", 0)


def parse_claim(text: str) -> Claim:
    """What ``str`` of a claim wrote; nobody's for an empty text."""
    process, _, until_ms = text.partition(" ")
    return Claim(process, int(until_ms)) if until_ms else NOBODY


@dataclass(frozen=True, slots=True)
class Digested:
    """The digest of the first ``size`` bytes, as lower-case hex digits."""

    size: int
    value: str

    def __str__(self) -> str:
        return f"{self.size} {self.value}"


def parse_digested(text: str) -> Digested:
    """What ``str`` of it wrote; of no bytes, and without a value, for an empty text."""
    size, _, value = text.partition(" ")
    return Digested(int(size), value) if value else Digested(0, "")


@dataclass(frozen=True, slots=True)
class Progress:
    """What is here of an upload in parts."""

    size: int
    """Bytes of the prefix."""
    generation: int
    """Of the upload; whoever changes what is here raises it."""
    waiting: Sequence[ByteRange]
    """In order."""
    claim: Claim = NOBODY
    digested: Digested = Digested(0, "")

    @property
    def end(self) -> int:
        """Behind the last byte that is here."""
        return self.waiting[-1].last + 1 if self.waiting else self.size

    def gaps(self, size: int) -> list[ByteRange]:
        """What is missing of a blob of that size."""
        missing, position = [], self.size
        for part in self.waiting:
            if part.start > position:
                missing.append(ByteRange(position, part.start - position))
            position = part.last + 1
        if position < size:
            missing.append(ByteRange(position, size - position))
        return missing

    def in_the_way(self, part: ByteRange) -> ByteRange | None:
        """What shares bytes with a part, and is not that very part; None: nothing."""
        if part.start < self.size:
            return ByteRange(0, self.size)
        for other in self.waiting:
            if other != part and other.start <= part.last and part.start <= other.last:
                return other
        return None

    def with_part(self, part: ByteRange) -> Progress:
        """With one more that waits, or again."""
        waiting = sorted({*self.waiting, part}, key=lambda each: each.start)
        return Progress(self.size, self.generation, waiting, self.claim, self.digested)


def chain(size: int, waiting: Iterable[ByteRange]) -> list[ByteRange]:
    """The parts that can be joined to a prefix of ``size`` bytes in one commit, in order."""
    following: list[ByteRange] = []
    fragments = 0
    for part in waiting:
        fragments += -(-part.length // FRAGMENT_BYTES_MAX)
        if part.start != size or fragments > JOINED_FRAGMENTS_MAX or len(following) == JOINS_MAX:
            break
        following.append(part)
        size = part.last + 1
    return following
