"""Digests that grow with an upload, and where they wait between two requests of it.

A client sends a blob in several requests.  The digest of what came so far is kept here, so that the
bytes are read only once; when it is missing (another process took the earlier requests, or too many
uploads are open) the digest is rebuilt from the stored bytes.  What was appended to an upload never
changes, so a digest of its first ``size`` bytes stays right whatever happens to the upload.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fabric.driver.registry.names import HEX_DIGITS

Buffer = bytes | bytearray | memoryview

PARKED_MAX = 4096
"""Digests kept between requests; each is a few hundred bytes."""

PARKED_TTL_S = 3600.0


class RunningDigest(Protocol):
    """A digest of the bytes given so far.  Hashing goes on beside the caller."""

    algorithm: str
    size: int
    """Bytes given so far."""

    async def update(self, data: Buffer) -> None:
        """Take more bytes; the caller must not change them.  Waits while earlier ones are in the way."""
        ...

    async def settle(self) -> None:
        """Wait until all bytes given are hashed."""
        ...

    def copy(self) -> RunningDigest:
        """An independent digest of the same bytes; only of a settled one."""
        ...

    def value(self) -> str:
        """Lower-case hex digits; only of a settled one."""
        ...


NewDigest = Callable[[str], RunningDigest]
"""Makes an empty digest of an algorithm."""


class _Parked(NamedTuple):
    digest: RunningDigest
    expires_at: float


class ParkedDigests:
    """Settled digests by upload and algorithm.  Time comes in as seconds of any monotonic clock."""

    def __init__(self, count_max: int = PARKED_MAX, ttl_s: float = PARKED_TTL_S) -> None:
        self._count_max = count_max
        self._ttl_s = ttl_s
        self._parked: OrderedDict[tuple[str, str], _Parked] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, upload_id: str, digest: RunningDigest, now: float) -> None:
        """Keep a settled digest; replaces the upload's earlier one."""
        key = (upload_id, digest.algorithm)
        self._parked.pop(key, None)
        self._parked[key] = _Parked(digest, now + self._ttl_s)
        while self._parked and (
            len(self._parked) > self._count_max or next(iter(self._parked.values())).expires_at <= now
        ):
            self._parked.popitem(last=False)

    def copy_of(self, upload_id: str, algorithm: str, size_max: int, now: float) -> RunningDigest | None:
        """A copy of the upload's digest if it covers at most ``size_max`` bytes.

        A copy, because two requests may continue from the same size; the store lets only one succeed.
        """
        parked = self._parked.get((upload_id, algorithm))
        if parked is None or parked.expires_at <= now or parked.digest.size > size_max:
            return None
        return parked.digest.copy()

    def drop(self, upload_id: str) -> None:
        """Forget an upload that is over."""
        for algorithm in HEX_DIGITS:
            self._parked.pop((upload_id, algorithm), None)
