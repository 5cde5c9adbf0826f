"""A store seen through changes that are not written yet.

Operations that are written together must see one another: each works on a ``DeltaStore`` over the
durable store, and its changes then go out as one batch.  Deltas nest: a commit of several operations
works on a delta of its own and is absorbed by the batch's only when all of them held.
"""

from __future__ import annotations

from fabric.master.store import Pair, Reader


class DeltaStore:
    """``base`` with ``changes`` on top; a None in ``changes`` hides the base's value."""

    __slots__ = ("_base", "changes")

    def __init__(self, base: Reader) -> None:
        self._base = base
        self.changes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value as it will be."""
        if key in self.changes:
            return self.changes[key]
        return self._base.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self.changes[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a key, whether it is there or not."""
        self.changes[key] = None

    def absorb(self, inner: DeltaStore) -> None:
        """Take over the changes of a delta that was made over this one."""
        self.changes.update(inner.changes)

    def scan(self, start: bytes, stop: bytes, limit: int, reverse: bool = False) -> list[Pair]:
        """The merged view; its cost grows with the number of changes."""
        ours = {key: value for key, value in self.changes.items() if start <= key < stop}
        if not ours:
            return self._base.scan(start, stop, limit, reverse)
        # Every hidden key may take one place among those that the base returns.
        hidden = sum(value is None for value in ours.values())
        merged = {
            key: value
            for key, value in self._base.scan(start, stop, limit + hidden, reverse)
            if key not in ours
        }
        merged.update((key, value) for key, value in ours.items() if value is not None)
        return sorted(merged.items(), reverse=reverse)[:limit]
