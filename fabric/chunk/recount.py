"""Counting what an index holds once more, and comparing with what it has counted itself."""

from __future__ import annotations

from collections.abc import Iterator

from fabric.chunk.data_file import file_name
from fabric.chunk.index import BucketTotals, Counters, Entry, FileTotals, Index, bucket_totals
from fabric.errors import DiskFailed
from fabric.settings import BUCKETS


class Recount:
    """One walk over all entries, which holds one count a data file."""

    def __init__(self, index: Index, counters: Counters) -> None:
        self._index = index
        self._counters = counters
        self._is_cut_short = False
        """Not every entry could be read."""
        self.files: dict[int, FileTotals] = {}
        """What entries point at, by file number."""
        self.fragments = 0
        self.live_bytes = 0
        self.tombstones = 0

    def differences(self) -> Iterator[str]:
        """Read everything; a sentence for each counter that is wrong and each place that cannot be read."""
        for bucket in range(BUCKETS):
            try:
                has = bucket_totals(self._counting(bucket))
            except DiskFailed as error:
                self._is_cut_short = True
                yield error.message
                continue
            self.fragments += has.fragments
            self.live_bytes += has.live_bytes
            counted = self._counters.buckets.get(bucket, BucketTotals())
            if has != counted:
                yield (
                    f"index bucket {bucket}: {has.fragments} live fragments with {has.live_bytes} bytes; "
                    f"counted are {counted.fragments} with {counted.live_bytes}"
                    + (", and others" if has.fragments == counted.fragments else "")
                )
        if not self._is_cut_short:
            yield from self._in_files()

    def _counting(self, bucket: int) -> Iterator[tuple[int, Entry]]:
        for fid, entry in self._index.scan_bucket(bucket, None):
            has = self.files.get(entry.file, FileTotals())
            self.files[entry.file] = FileTotals(has.records + 1, has.record_bytes + entry.record_bytes)
            self.tombstones += entry.is_tombstone
            yield fid, entry

    def _in_files(self) -> Iterator[str]:
        for number in sorted({*self.files, *self._counters.files}):
            has = self.files.get(number, FileTotals())
            counted = self._counters.files.get(number) or FileTotals()
            if (has.records, has.record_bytes) != (counted.records, counted.record_bytes):
                yield (
                    f"{file_name(number)}: {has.records} entries with {has.record_bytes} bytes point there; "
                    f"counted are {counted.records} with {counted.record_bytes}"
                )
