"""Which replica of a fragment is to have its bytes in memory.

A write leaves its bytes in the page cache of every replica.  One of them is enough for the reads that
follow; in the others they only push out what somebody does read, and each page that the system must find
for them costs processor time.  So of a large fragment one replica keeps the bytes, the others let go of
them once they are on the disk, and reads ask that one first.  Proxies and chunk servers find it by the
same rule, without a word between them; where they differ for a moment, a read goes to the disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabric.settings import KIB

WARM_BYTES_MIN = 256 * KIB
"""Of a smaller fragment every replica keeps the bytes: to let go of them would cost more than it saves."""


def warm_replica(fid: int, length: int, members: Sequence[str]) -> str:
    """The server, of the names of a group's members, that keeps the fragment; "" when all do.

    Fids of one object follow each other, so its fragments take turns among the members.
    """
    if length < WARM_BYTES_MIN or len(members) < 2:
        return ""
    return sorted(members)[fid % len(members)]
