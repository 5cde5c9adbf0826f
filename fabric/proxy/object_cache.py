"""Objects that cannot change, remembered until they are deleted.

Only objects that their writer declared immutable (blobs and manifests by digest) are kept, so a
stale entry can only be one of a deleted object.  The master publishes deletions; when a published
number is missed, everything is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict

from fabric.wire.messages import Opened

ENTRIES_MAX = 10_000


class ObjectCache:
    """Path -> its first page of fragments; least recently used entries go first."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries: OrderedDict[str, Opened] = OrderedDict()
        self._entries_max = entries_max

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, path: str, offset: int) -> Opened | None:
        """The page that contains byte ``offset``, if it is here."""
        entry = self._entries.get(path)
        if entry is None:
            return None
        self._entries.move_to_end(path)
        if not entry.more:
            return entry
        return entry if offset < sum(fragment.length for fragment in entry.fragments) else None

    def put(self, opened: Opened) -> None:
        """Remember an immutable object's first page; anything else is ignored."""
        if not opened.info.immutable or opened.start != 0:
            return
        self._entries[opened.info.path] = opened
        self._entries.move_to_end(opened.info.path)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def forget(self, path: str) -> None:
        """This path was deleted, replaced or is in doubt."""
        self._entries.pop(path, None)

    def clear(self) -> None:
        """A published number was missed: anything may have been deleted."""
        self._entries.clear()
