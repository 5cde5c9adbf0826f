"""The index contract in memory, with the forgetting that a power cut brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fabric.chunk.index import Entry, IndexLost, Watermark, bucket_of
from fabric.errors import DiskFailed


class MemoryIndex:
    def __init__(self, home: MemoryIndexHome) -> None:
        self._home = home
        self._entries: dict[int, Entry] = dict(home.durable)
        for batch in home.surviving:
            self._entries.update(batch)
        self._watermark = home.durable_watermark
        self._unsynced: list[list[tuple[int, Entry]]] = list(home.surviving)

    def get(self, fid: int) -> Entry | None:
        self._check()
        return self._entries.get(fid)

    def put(self, entries: Sequence[tuple[int, Entry]]) -> None:
        self._check()
        if self._home.fail_puts:
            raise DiskFailed("injected: index put failed")
        self._entries.update(entries)
        self._unsynced.append(list(entries))

    def scan(self) -> Iterator[tuple[int, Entry]]:
        self._check()
        yield from sorted(self._entries.items(), key=lambda row: (bucket_of(row[0]), row[0]))

    def scan_bucket(self, bucket: int, after: int | None) -> Iterator[tuple[int, Entry]]:
        self._check()
        floor = -1 if after is None else after
        yield from sorted(
            row for row in self._entries.items() if bucket_of(row[0]) == bucket and row[0] > floor
        )

    def checkpoint(self, watermark: Watermark) -> None:
        self._check()
        self._home.durable = dict(self._entries)
        self._home.durable_watermark = self._watermark = watermark
        self._home.surviving = []
        self._unsynced.clear()

    def watermark(self) -> Watermark | None:
        return self._watermark

    def close(self) -> None:
        self._home.surviving = list(self._unsynced)

    def _check(self) -> None:
        if self._home.lost:
            raise IndexLost("injected: index damaged")


class MemoryIndexHome:
    """Survives its indexes.  Without ``close`` what was put since the last checkpoint is forgotten."""

    def __init__(self) -> None:
        self.exists = False
        self.lost = False
        self.fail_puts = False
        self.durable: dict[int, Entry] = {}
        self.durable_watermark: Watermark | None = None
        self.surviving: list[list[tuple[int, Entry]]] = []
        self.created = 0

    def open(self) -> MemoryIndex:
        if not self.exists or self.lost:
            raise IndexLost("no index")
        return MemoryIndex(self)

    def create(self) -> MemoryIndex:
        self.created += 1
        self.exists, self.lost = True, False
        self.durable, self.durable_watermark, self.surviving = {}, None, []
        return MemoryIndex(self)
