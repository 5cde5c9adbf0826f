"""What a chunk server holds, in numbers: counts, and the digests by which replicas are compared.

The digest of a bucket is the XOR of xxh3-128 over ``(fid, length, checksum)`` (three little-endian 64-bit
numbers) of its live fragments, so adding and removing one is the same cheap step in any order.  The
overall digest is xxh3-128 over all buckets' digests, in order.

Per data file: how many entries point into it, and how many bytes their records take.  The rest of a file is
garbage.

One thread changes the totals; others read a ``Snapshot``, which is replaced whole.
"""

from __future__ import annotations

import msgspec
import xxhash

from fabric.chunk.index import BucketTotals, Counters, Entry, FileTotals, fragment_digest
from fabric.ids import bucket_of
from fabric.settings import BUCKETS

DIGEST_BYTES = 16


class Snapshot(msgspec.Struct, frozen=True):
    """The totals at one moment."""

    digests: tuple[int, ...] = (0,) * BUCKETS
    fragments: int = 0
    live_bytes: int = 0
    record_bytes: int = 0
    """Of all records that entries point at, tombstones included."""
    mutations: int = 0
    """Grows whenever the set of live fragments changes; for noticing, not for counting."""

    def bucket_digests(self) -> list[bytes]:
        """16 bytes a bucket."""
        return [digest.to_bytes(DIGEST_BYTES, "big") for digest in self.digests]


def overall_digest(bucket_digests: list[bytes]) -> bytes:
    """16 bytes over all buckets."""
    return xxhash.xxh3_128_digest(b"".join(bucket_digests))


class Totals:
    """Kept in step with the index by whoever writes to it."""

    def __init__(self, counters: Counters | None = None) -> None:
        """``counters``: all that an index holds; None for an empty one."""
        buckets = counters.buckets if counters is not None else {}
        empty = BucketTotals()
        known = [buckets.get(bucket, empty) for bucket in range(BUCKETS)]
        self._digests = [totals.digest for totals in known]
        self._fragments = [totals.fragments for totals in known]
        self._live_bytes = [totals.live_bytes for totals in known]
        self._files: dict[int, FileTotals] = {
            number: totals
            for number, totals in (counters.files.items() if counters is not None else ())
            if totals is not None
        }
        self._fragment_count = sum(self._fragments)
        self._live_bytes_sum = sum(self._live_bytes)
        self._record_bytes = sum(totals.record_bytes for totals in self._files.values())
        self._mutations = 0
        self._changed_buckets: set[int] = set()
        self._changed_files: set[int] = set()
        self.snapshot = Snapshot()
        self.publish()

    def file(self, number: int) -> FileTotals:
        """Of one data file; may be asked on any thread."""
        return self._files.get(number, _NO_ENTRIES)

    def files(self) -> dict[int, FileTotals]:
        """Of all data files that entries point into, and of some that none does; for any thread."""
        return self._files.copy()

    def replace(self, fid: int, old: Entry | None, new: Entry | None) -> None:
        """The entry of ``fid`` changed from ``old`` to ``new``; shown after ``publish``."""
        if old is not None:
            self._count_record(old, -1)
        if new is not None:
            self._count_record(new, 1)
        was, now = _live(old), _live(new)
        if was == now:
            return
        if was is not None:
            self._count_fragment(fid, was, -1)
        if now is not None:
            self._count_fragment(fid, now, 1)

    def complete(self, number: int) -> None:
        """All records of this file, which compaction wrote, are accounted for."""
        self._files[number] = msgspec.structs.replace(self.file(number), complete=True)
        self._changed_files.add(number)

    def forget(self, number: int) -> None:
        """The file is gone, and no entry points into it."""
        totals = self._files.pop(number, _NO_ENTRIES)
        assert totals.records == 0, f"{totals.records} entries point into data file {number}"
        self._changed_files.add(number)

    def take_changes(self) -> Counters:
        """The counters that changed since the last call, to go with the entries into the index."""
        buckets = {
            bucket: BucketTotals(self._digests[bucket], self._fragments[bucket], self._live_bytes[bucket])
            for bucket in self._changed_buckets
        }
        files = {number: self._files.get(number) for number in self._changed_files}
        self._changed_buckets.clear()
        self._changed_files.clear()
        return Counters(buckets, files)

    def publish(self) -> None:
        """Show the changes to the other threads."""
        self.snapshot = Snapshot(
            tuple(self._digests),
            self._fragment_count,
            self._live_bytes_sum,
            self._record_bytes,
            self._mutations,
        )

    def _count_record(self, entry: Entry, sign: int) -> None:
        totals = self._files.get(entry.file, _NO_ENTRIES)
        record_bytes = sign * entry.record_bytes
        self._files[entry.file] = FileTotals(
            totals.records + sign,
            totals.record_bytes + record_bytes,
            max(totals.end, entry.end),
            totals.complete,
        )
        self._changed_files.add(entry.file)
        self._record_bytes += record_bytes

    def _count_fragment(self, fid: int, fragment: tuple[int, int], sign: int) -> None:
        length, checksum = fragment
        bucket = bucket_of(fid)
        self._digests[bucket] ^= fragment_digest(fid, length, checksum)
        self._fragments[bucket] += sign
        self._live_bytes[bucket] += sign * length
        self._changed_buckets.add(bucket)
        self._fragment_count += sign
        self._live_bytes_sum += sign * length
        self._mutations += 1


def _live(entry: Entry | None) -> tuple[int, int] | None:
    """Length and checksum of a live fragment; None when there is none."""
    return None if entry is None or entry.is_tombstone else (entry.length, entry.checksum)


_NO_ENTRIES = FileTotals()
