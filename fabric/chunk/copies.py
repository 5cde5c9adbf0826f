"""How long a tombstone is needed, and which of several records of one fid counts.

A tombstone must stay while any data file may still hold a record of what it deletes: an index that is
rebuilt from the data files would bring the fragment back.  So an entry remembers in ``stale`` which file may
hold another copy.  There is one in two cases: a tombstone's fragment itself, and the damaged record that a
repair has replaced.  File numbers are not used again, so "that file is gone" says that the copy is.

Two files may hold copies at once (a repaired fragment that is deleted; a fragment deleted between
its copying by compaction and the switch of its entry).  Then ``stale`` is the highest of them and the flag
MANY widens it to all files up to it: it keeps the tombstone longer than needed, and never too short.

Everything here is a pure function of entries.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from fabric.chunk.index import MANY, Entry
from fabric.chunk.record import TOMBSTONE


def replacing(new: Entry, old: Entry | None) -> Entry:
    """``new`` as it takes the place of ``old``, whose record stays where it lies."""
    if old is None:
        return new
    flags, stale = new.flags | (old.flags & MANY), old.stale
    inherited = msgspec.structs.replace(new, flags=flags, stale=stale)
    # The record of a tombstone that is written anew holds nothing that could come back.
    return inherited if old.is_tombstone else holding(inherited, old.file)


def holding(entry: Entry, file: int, leaving: Container[int] = ()) -> Entry:
    """``entry``, knowing that ``file`` holds another copy.  ``leaving``: files about to be removed."""
    many = entry.flags & MANY
    if not many and (entry.stale in (0, file) or entry.stale in leaving):
        return msgspec.structs.replace(entry, stale=file)
    return msgspec.structs.replace(entry, stale=max(entry.stale, file), flags=entry.flags | MANY)


def is_needed(tombstone: Entry, files: Iterable[int]) -> bool:
    """Whether one of these data files may still hold what the tombstone deletes."""
    if tombstone.flags & MANY:
        return any(file <= tombstone.stale for file in files)
    return tombstone.stale in files


def settled(old: Entry | None, found: Entry, *, good: bool, old_is_good: bool) -> Entry:
    """The entry of a fid after a record of it was found in a data file that the index may not know.

    A tombstone holds for ever; of several copies of one fragment the one found last counts, unless it is
    damaged and the earlier one is not.
    """
    if old is None:
        return found
    if (old.file, old.offset) == (found.file, found.offset):
        return old
    if found.is_tombstone:
        return replacing(found, old)
    same = (found.length, found.checksum) == (old.length, old.checksum)
    if old.is_tombstone or not same or (old_is_good and not good):
        return old if old.stale == found.file else holding(old, found.file)
    return replacing(found, old)


assert not MANY & TOMBSTONE
