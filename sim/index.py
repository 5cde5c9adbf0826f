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
    check_bucket,
)
from fabric.errors import DiskFailed, NoSpace
from fabric.ids import bucket_of


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
        self.rows: dict[int, dict[int, Entry]] = {}
        """By bucket and fid."""
        self.buckets: dict[int, BucketTotals] = {}
        self.files: dict[int, FileTotals] = {}
        self.notes: dict[str, bytes] = {}

    def copy(self) -> _Content:
        other = _Content()
        other.rows = {bucket: dict(rows) for bucket, rows in self.rows.items()}
        other.buckets, other.files, other.notes = dict(self.buckets), dict(self.files), dict(self.notes)
        return other

    def apply(self, put: _Put) -> None:
        for fid, entry in put.entries:
            rows = self.rows.setdefault(bucket_of(fid), {})
            if entry is None:
                rows.pop(fid, None)
            else:
                rows[fid] = entry
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
        self.unsynced: list[_Put] = list(home.surviving)

    def get(self, fid: int) -> Entry | None:
        self._check()
        self._home.glance("index get")
        return self._content.rows.get(bucket_of(fid), {}).get(fid)

    def put(self, entries: Sequence[tuple[int, Entry | None]], counters: Counters) -> None:
        self._change("index put", _Put(entries, counters))

    def counters(self) -> Counters:
        self._check()
        return Counters(dict(self._content.buckets), dict(self._content.files))

    def scan(self) -> Iterator[tuple[int, Entry]]:
        self._check()
        content = sorted(self._content.rows.items())
        yield from [row for _, rows in content for row in sorted(rows.items())]

    def scan_bucket(self, bucket: int, after: int | None) -> Iterator[tuple[int, Entry]]:
        self._check()
        rows = self._content.rows.get(bucket)
        if rows:
            floor = -1 if after is None else after
            yield from sorted(row for row in rows.items() if row[0] > floor)

    def highest_fid(self) -> int:
        self._check()
        self._home.glance("index highest fid")
        return max((max(rows) for rows in self._content.rows.values() if rows), default=-1)

    def verify_bucket(self, bucket: int) -> None:
        counted = self._content.buckets.get(bucket, BucketTotals())
        check_bucket(bucket, self.scan_bucket(bucket, None), counted)

    def checkpoint(self, watermark: Watermark) -> None:
        self._check()
        self._home.step("index checkpoint")
        self._home.check_room()
        self._home.durable = self._content.copy()
        self._home.durable_watermark = self._watermark = watermark
        self._home.surviving = []
        self.unsynced.clear()

    def watermark(self) -> Watermark | None:
        return self._watermark

    def note(self, name: str, value: bytes) -> None:
        self._change("index note", _Put(note=(name, value)))

    def noted(self, name: str) -> bytes | None:
        self._check()
        return self._content.notes.get(name)

    def close(self) -> None:
        self._home.surviving = list(self.unsynced)

    def _change(self, what: str, put: _Put) -> None:
        self._check()
        self._home.step(what)
        if self._home.fail_puts:
            raise DiskFailed("injected: index put failed")
        self._home.check_room()
        self._content.apply(put)
        self.unsynced.append(put)

    def _check(self) -> None:
        if self._home.lost:
            raise IndexLost("injected: index damaged")


class MemoryIndexHome:
    """Survives its indexes.  Without ``close`` what was put since the last checkpoint is forgotten."""

    def __init__(self) -> None:
        self.exists = False
        self.lost = False
        self.fail_puts = False
        self.full = False
        """Everything that would grow the index fails for lack of space."""
        self.durable = _Content()
        self.durable_watermark: Watermark | None = None
        self.surviving: list[_Put] = []
        self.created = 0
        self.condemned = False
        self.current: MemoryIndex | None = None
        """The one that was opened last."""
        self.step: Callable[[str], None] = lambda what: None
        """Called before each change; may raise, as a power cut would."""
        self.glance: Callable[[str], None] = lambda what: None
        """Called before each look-up."""

    def open(self) -> MemoryIndex:
        if not self.exists or self.lost or self.condemned:
            raise IndexLost("no index")
        self.current = MemoryIndex(self)
        return self.current

    def create(self) -> MemoryIndex:
        self.step("index create")
        self.check_room()
        self.created += 1
        self.exists, self.lost, self.condemned = True, False, False
        self.durable, self.durable_watermark, self.surviving = _Content(), None, []
        self.current = MemoryIndex(self)
        return self.current

    def condemn(self) -> None:
        self.step("index condemn")
        self.condemned = True

    def check_room(self) -> None:
        """Raises NoSpace when it is full."""
        if self.full:
            raise NoSpace("injected: no space for the index")

    @property
    def unsynced(self) -> int:
        """Puts since the last checkpoint."""
        return len(self.current.unsynced) if self.current is not None else 0

    def crash(self, puts: int = 0) -> MemoryIndexHome:
        """What a power cut leaves, with so many of the unsynced puts; this one stays as it is."""
        after = MemoryIndexHome()
        after.exists, after.lost, after.condemned = self.exists, self.lost, self.condemned
        after.created = self.created
        after.durable, after.durable_watermark = self.durable.copy(), self.durable_watermark
        if self.current is not None:
            after.surviving = self.current.unsynced[:puts]
        return after
