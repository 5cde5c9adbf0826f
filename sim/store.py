"""A store in memory that keeps the contract, and whose writes can be made to fail."""

from __future__ import annotations

from bisect import bisect_left, insort

from fabric.master.store import Changes, Pair, StoreFailed


class MemoryStore:
    """What is in it is what was durable: give it to another life of the master."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self.writes = 0
        self.fail_with = ""

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, start: bytes, stop: bytes, limit: int, reverse: bool = False) -> list[Pair]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]
        if reverse:
            keys.reverse()
        return [(key, self._values[key]) for key in keys[:limit]]

    def write(self, changes: Changes) -> None:
        if self.fail_with:
            raise StoreFailed(self.fail_with)
        self.writes += 1
        for key, value in changes.items():
            if key in self._values:
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]
            if value is not None:
                self._values[key] = value
                insort(self._keys, key)
