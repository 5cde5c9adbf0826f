"""What a chunk server holds, in numbers: counts, and the digests by which replicas are compared.

The digest of a bucket is the XOR of xxh3-128 over ``(fid, length, checksum)`` (three little-endian 64-bit
numbers) of its live fragments, so adding and removing one is the same cheap step in any order.  The
overall digest is xxh3-128 over all buckets' digests, in order.

One thread changes the totals; others read a ``Snapshot``, which is replaced whole.
"""

from __future__ import annotations

import struct

import msgspec
import xxhash

from fabric.chunk.index import Entry, bucket_of
from fabric.settings import BUCKETS

DIGEST_BYTES = 16

_FRAGMENT = struct.Struct("<QQQ")


class Snapshot(msgspec.Struct, frozen=True):
    """The totals at one moment."""

    digests: tuple[int, ...] = (0,) * BUCKETS
    fragments: int = 0
    live_bytes: int = 0
    mutations: int = 0
    """Grows whenever the set of live fragments changes; for noticing, not for counting."""

    def bucket_digests(self) -> list[bytes]:
        """16 bytes a bucket."""
        return [digest.to_bytes(DIGEST_BYTES, "big") for digest in self.digests]


def overall_digest(bucket_digests: list[bytes]) -> bytes:
    """16 bytes over all buckets."""
    return xxhash.xxh3_128_digest(b"".join(bucket_digests))


def fragment_digest(fid: int, length: int, checksum: int) -> int:
    """What one live fragment adds to the digest of its bucket."""
    return xxhash.xxh3_128_intdigest(_FRAGMENT.pack(fid, length, checksum))


class Totals:
    """Kept in step with the index by whoever writes to it."""

    def __init__(self) -> None:
        self._digests = [0] * BUCKETS
        self._fragments = 0
        self._live_bytes = 0
        self._mutations = 0
        self.snapshot = Snapshot()

    def replace(self, fid: int, old: Entry | None, new: Entry | None) -> None:
        """The entry of ``fid`` changed from ``old`` to ``new``; shown after ``publish``."""
        self._count(fid, old, -1)
        self._count(fid, new, 1)

    def publish(self) -> None:
        """Show the changes to the other threads."""
        self.snapshot = Snapshot(tuple(self._digests), self._fragments, self._live_bytes, self._mutations)

    def _count(self, fid: int, entry: Entry | None, sign: int) -> None:
        if entry is None or entry.is_tombstone:
            return
        self._digests[bucket_of(fid)] ^= fragment_digest(fid, entry.length, entry.checksum)
        self._fragments += sign
        self._live_bytes += sign * entry.length
        self._mutations += 1
