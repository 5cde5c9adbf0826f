"""Copies of what the catalog says of names, used only while nobody can have changed it unnoticed.

``fabric.master.watchers`` has the theory: whoever holds a lease is told of each name that is replaced or
removed, and that change is not confirmed before.  Two races are left, and closed here:

- A lease is counted from the moment at which its question was sent, and by a margin for clocks that do not
  run alike; the master counts from when it came.
- What is told may overtake the answer to an earlier look-up.  So every look-up notes how often something
  was told before it began, and what it finds is kept only if that is still the count when it ends.

Not the generation: it rises without a change that a reader could see.  Who compares generations asks the
store.  Copies of bytes are of immutable objects, and true for ever; who may see them a link decides.
"""

from __future__ import annotations

from collections import OrderedDict

from fabric.wire.messages import Changes, ObjectInfo

CLOCKS_DIFFER = 0.9
"""Of a lease we use so much."""
CONTENT_SHARE = 0.125
"""Of the room one object's bytes may take."""
_ENTRY_BYTES = 1500
"""What an entry takes in memory besides its bytes and attributes; measured, rounded up."""


class NameCache:
    """Path -> what is there; path -> bytes of a small immutable object.  Least recently used go first."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.told = 0
        """Raised when names have changed.  A look-up hands back to ``keep`` what it was at its start."""
        self._bytes = 0
        self._sizes: OrderedDict[tuple[str, bool], int] = OrderedDict()
        self._names: dict[str, ObjectInfo] = {}
        self._contents: dict[str, bytes] = {}
        self._valid_until = float("-inf")

    def __len__(self) -> int:
        return len(self._sizes)

    def find(self, path: str, now: float) -> ObjectInfo | None:
        """What is at ``path``, if that is known for sure."""
        info = self._names.get(path)
        if info is None or now >= self._valid_until:
            return None
        self._sizes.move_to_end((path, False))
        return info

    def keep(self, info: ObjectInfo, told: int) -> None:
        """Remember what a look-up has found, unless something was told since it began."""
        if told == self.told:
            attributes = sum(len(key) + len(value) for key, value in info.attributes.items())
            self._make_room((info.path, False), _ENTRY_BYTES + attributes)
            self._names[info.path] = info

    def content(self, path: str) -> bytes | None:
        """The bytes of the immutable object at ``path``."""
        data = self._contents.get(path)
        if data is not None:
            self._sizes.move_to_end((path, True))
        return data

    def keep_content(self, path: str, data: bytes) -> None:
        """Remember the bytes of an immutable object."""
        if len(data) <= self.bytes_max * CONTENT_SHARE:
            self._make_room((path, True), _ENTRY_BYTES + len(data))
            self._contents[path] = data

    # --- what the master says ---------------------------------------------------------------------

    def on_changes(self, changes: Changes, asked_at: float) -> None:
        """Let go of what changed; what is left may be used for a lease from when it was asked for."""
        if changes.lost:
            self.told += 1
            for path in list(self._names):
                self._drop((path, False))
        elif changes.paths:
            self.told += 1
            for path in changes.paths:
                self._drop((path, False))
        self._valid_until = max(self._valid_until, asked_at + changes.lease_ms / 1000 * CLOCKS_DIFFER)

    # --- room -------------------------------------------------------------------------------------

    def _make_room(self, key: tuple[str, bool], size: int) -> None:
        self._drop(key)
        self._sizes[key] = size
        self._bytes += size
        while self._bytes > self.bytes_max and len(self._sizes) > 1:
            self._drop(next(iter(self._sizes)))

    def _drop(self, key: tuple[str, bool]) -> None:
        size = self._sizes.pop(key, None)
        if size is not None:
            self._bytes -= size
            path, is_content = key
            if is_content:
                del self._contents[path]
            else:
                del self._names[path]
