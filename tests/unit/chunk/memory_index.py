"""The index contract in memory, with the forgetting that a power cut brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fabric.chunk.index import (
    BucketTotals,
    Counters,
    Entry,
    FileTotals,
    IndexLost,
    Watermark,
    bucket_of,
    check_bucket,
)
from fabric.errors import DiskFailed


class _Put:
    """What one put, or note, changes."""

    def __init__(
        self,
        entries: Sequence[tuple[int, Entry | None]] = (),
        counters: Counters | None = None,
        note: tuple[str, bytes] | None = None,
    ) -> None:
        self.entries = list(entries)
        self.counters = counters or Counters()
        self.note = note


class _Content:
    """All that an index holds at one moment."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.buckets: dict[int, BucketTotals] = {}
        self.files: dict[int, FileTotals] = {}
        self.notes: dict[str, bytes] = {}

    def copy(self) -> _Content:
        other = _Content()
        other.entries, other.buckets = dict(self.entries), dict(self.buckets)
        other.files, other.notes = dict(self.files), dict(self.notes)
        return other

    def apply(self, put: _Put) -> None:
        for fid, entry in put.entries:
            if entry is None:
                self.entries.pop(fid, None)
            else:
                self.entries[fid] = entry
        self.buckets.update(put.counters.buckets)
        for number, totals in put.counters.files.items():
            if totals is None:
                self.files.pop(number, None)
            else:
                self.files[number] = totals
        if put.note is not None:
            self.notes[put.note[0]] = put.note[1]


class MemoryIndex:
    def __init__(self, home: MemoryIndexHome) -> None:
        self._home = home
        self._content = home.durable.copy()
        for put in home.surviving:
            self._content.apply(put)
        self._watermark = home.durable_watermark
        self._unsynced: list[_Put] = list(home.surviving)

    def get(self, fid: int) -> Entry | None:
        self._check()
        return self._content.entries.get(fid)

    def put(self, entries: Sequence[tuple[int, Entry | None]], counters: Counters) -> None:
        self._change(_Put(entries, counters))

    def counters(self) -> Counters:
        self._check()
        return Counters(dict(self._content.buckets), dict(self._content.files))

    def scan(self) -> Iterator[tuple[int, Entry]]:
        self._check()
        yield from sorted(self._content.entries.items(), key=lambda row: (bucket_of(row[0]), row[0]))

    def scan_bucket(self, bucket: int, after: int | None) -> Iterator[tuple[int, Entry]]:
        self._check()
        floor = -1 if after is None else after
        yield from sorted(
            row for row in self._content.entries.items() if bucket_of(row[0]) == bucket and row[0] > floor
        )

    def verify_bucket(self, bucket: int) -> None:
        counted = self._content.buckets.get(bucket, BucketTotals())
        check_bucket(bucket, self.scan_bucket(bucket, None), counted)

    def checkpoint(self, watermark: Watermark) -> None:
        self._check()
        self._home.step("index checkpoint")
        self._home.durable = self._content.copy()
        self._home.durable_watermark = self._watermark = watermark
        self._home.surviving = []
        self._unsynced.clear()

    def watermark(self) -> Watermark | None:
        return self._watermark

    def note(self, name: str, value: bytes) -> None:
        self._change(_Put(note=(name, value)))

    def noted(self, name: str) -> bytes | None:
        self._check()
        return self._content.notes.get(name)

    def close(self) -> None:
        self._home.surviving = list(self._unsynced)

    def survive(self, count: int) -> None:
        """A power cut is coming, and the first ``count`` unsynced puts will have reached the disk."""
        self._home.surviving = self._unsynced[:count]

    @property
    def unsynced(self) -> int:
        """Puts since the last checkpoint."""
        return len(self._unsynced)

    def _change(self, put: _Put) -> None:
        self._check()
        if self._home.fail_puts:
            raise DiskFailed("injected: index put failed")
        self._home.step("index put")
        self._content.apply(put)
        self._unsynced.append(put)

    def _check(self) -> None:
        if self._home.lost:
            raise IndexLost("injected: index damaged")


class MemoryIndexHome:
    """Survives its indexes.  Without ``close`` what was put since the last checkpoint is forgotten."""

    def __init__(self) -> None:
        self.exists = False
        self.lost = False
        self.fail_puts = False
        self.durable = _Content()
        self.durable_watermark: Watermark | None = None
        self.surviving: list[_Put] = []
        self.created = 0
        self.condemned = False
        self.step: Callable[[str], None] = lambda what: None
        """Called before each change; may raise, as a power cut would."""

    def open(self) -> MemoryIndex:
        if not self.exists or self.lost or self.condemned:
            raise IndexLost("no index")
        return MemoryIndex(self)

    def create(self) -> MemoryIndex:
        self.created += 1
        self.exists, self.lost, self.condemned = True, False, False
        self.durable, self.durable_watermark, self.surviving = _Content(), None, []
        return MemoryIndex(self)

    def condemn(self) -> None:
        self.condemned = True
