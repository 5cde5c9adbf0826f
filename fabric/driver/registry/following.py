"""The digest of an upload in parts, computed while its parts arrive.

SHA-256 can only be computed from the beginning on, and an upload's prefix never changes.  So one process
follows the prefix: it reads from the store what was joined, and notes the result with the upload whenever it
has caught up, and now and then before, so that any process can end the upload.  That it does so is a *claim*
with a time, renewed with each result.  When the process dies the claim runs out, and the next one that joins
a part, or is asked to end the upload, begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.digests import RunningDigest
from fabric.driver.registry.names import upload_path
from fabric.driver.registry.part_order import Claim, Digested, parse_claim
from fabric.errors import NotFound, Precondition
from fabric.settings import MIB
from fabric.wire.messages import AppendOperation, ObjectInfo

CLAIM = "follower"
"""Attribute of an upload: who computes its digest."""

DIGESTED = "digested"
"""Attribute of an upload: the digest of its first bytes."""

CLAIM_S = 15.0
"""A process that has not renewed its claim for so long has died, or has been told that it need not."""

RENEW_S = 5.0

STEP_BYTES_MAX = 64 * MIB
"""Read in one step."""

_ATTEMPTS_MAX = 8


class Claims:
    """Claims of this process, whose random name is ``process``."""

    def __init__(self, process: str, wall_ms: Callable[[], int]) -> None:
        self.process = process
        self.wall_ms = wall_ms

    def make(self) -> Claim:
        """From now on."""
        return Claim(self.process, self.wall_ms() + int(CLAIM_S * 1000))

    def are_open(self, claim: Claim) -> bool:
        """Whether this process may claim: nobody else has."""
        return claim.process == self.process or claim.until_ms <= self.wall_ms()


class Pace(Enum):
    """What a step of following came to."""

    BEHIND = "there is more to read"
    CAUGHT_UP = "all that is here is digested"
    OVER = "the upload is over, or another process follows it"


class Following:
    """Computes the digest of one upload, a step at a time.  ``digest`` may have its first bytes."""

    def __init__(
        self,
        store: ObjectStore,
        upload_id: str,
        digest: RunningDigest,
        claims: Claims,
        monotonic_s: Callable[[], float],
    ) -> None:
        self.digest = digest
        self._store = store
        self._path = upload_path(upload_id)
        self._claims = claims
        self._monotonic_s = monotonic_s
        self._noted_size = -1
        self._noted_at_s = monotonic_s()

    async def step(self) -> Pace:
        """Read and digest what is here, so many bytes at most.  Raises FabricError of the store."""
        try:
            info = await self._store.stat(self._path)
            if not self._claims.are_open(parse_claim(info.attributes.get(CLAIM, ""))):
                return Pace.OVER
            await self._read(min(info.size - self.digest.size, STEP_BYTES_MAX))
            is_level = self.digest.size == info.size
            is_due = self._monotonic_s() - self._noted_at_s >= RENEW_S
            if is_due or (is_level and self._noted_size != info.size):
                await self._note(info)
        except NotFound:
            return Pace.OVER
        return Pace.CAUGHT_UP if is_level else Pace.BEHIND

    async def _read(self, count: int) -> None:
        if count <= 0:
            return
        reader = await self._store.open(self._path, self.digest.size, count)
        try:
            async for piece in reader:
                await self.digest.update(piece)
        finally:
            await reader.close()
        await self.digest.settle()

    async def _note(self, info: ObjectInfo) -> None:
        """Tell the others; they may be changing the upload at the same time."""
        digested = Digested(self.digest.size, self.digest.value())
        for _ in range(_ATTEMPTS_MAX):
            noted = {DIGESTED: str(digested), CLAIM: str(self._claims.make())}
            try:
                await self._store.commit([AppendOperation(self._path, [], info.size, noted)])
            except Precondition:
                info = await self._store.stat(self._path)
            else:
                self._noted_size, self._noted_at_s = digested.size, self._monotonic_s()
                return
