"""The tasks of a registry process that follow uploads in parts with their digests.

``follow`` begins one, or wakes it; ``wait`` is for a request that needs what it comes to.  A task ends with
its upload, when nothing has happened for long, or at an error of the store; what it has computed is kept for
the next time.
"""

from __future__ import annotations

import asyncio
import logging
import time

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.digests import NewDigest, ParkedDigests
from fabric.driver.registry.following import Claims, Following, Pace
from fabric.errors import FabricError

LOOK_S = 1.0
"""Other processes join parts too: so often a task that has caught up looks."""

IDLE_S = 600.0
"""A task with nothing to do for so long ends.  Until then it keeps its claim: parts may be slow to come."""

AT_ONCE_MAX = 4
"""Uploads that are read at the same time; the others wait for their turn."""

_log = logging.getLogger(__name__)


class _Task:
    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.rounds = 0
        self.round_over = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.is_over = False
        self.error: FabricError | None = None
        """Why it ended, if something went wrong."""

    def end_round(self) -> None:
        self.rounds += 1
        over, self.round_over = self.round_over, asyncio.Event()
        over.set()


class Followers:
    """All tasks of this process."""

    def __init__(self, store: ObjectStore, new_digest: NewDigest, claims: Claims) -> None:
        self._store = store
        self._new_digest = new_digest
        self._claims = claims
        self._parked = ParkedDigests()
        self._tasks: dict[str, _Task] = {}
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    def follow(self, upload_id: str, algorithm: str) -> None:
        """Compute the digest of this upload, from where it is."""
        running = self._tasks.get(upload_id)
        if running is None:
            running = self._tasks[upload_id] = _Task()
            running.task = asyncio.create_task(self._run(upload_id, algorithm, running))
        running.wake.set()

    def rounds(self, upload_id: str) -> int:
        """How often the upload's digest was found level with it, or given up; -1: it is not followed here."""
        running = self._tasks.get(upload_id)
        return -1 if running is None else running.rounds

    async def wait(self, upload_id: str, rounds: int, timeout_s: float) -> bool:
        """Until there were more than so many rounds, or it is not followed; False when that takes too long.

        Raises the FabricError that ended the task meanwhile: whoever needs the digest must hear of it.
        """
        running = self._tasks.get(upload_id)
        try:
            async with asyncio.timeout(timeout_s):
                while running is not None and running.rounds <= rounds and not running.is_over:
                    await running.round_over.wait()
        except TimeoutError:
            return False
        if running is not None and running.error is not None:
            raise running.error
        return True

    async def close(self) -> None:
        """End all tasks."""
        tasks = [running.task for running in self._tasks.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, upload_id: str, algorithm: str, running: _Task) -> None:
        digest = self._parked.copy_of(upload_id, algorithm, 2**62, time.monotonic())
        following = Following(
            self._store, upload_id, digest or self._new_digest(algorithm), self._claims, time.monotonic
        )
        try:
            try:
                await self._go_on(following, running)
            except FabricError as error:
                _log.warning("the digest of upload %s waits: %s", upload_id, error)
                running.error = error
            await following.digest.settle()
            self._parked.park(upload_id, following.digest, time.monotonic())
        finally:
            del self._tasks[upload_id]
            running.is_over = True
            running.end_round()

    async def _go_on(self, following: Following, running: _Task) -> None:
        moved_at, size = time.monotonic(), -1
        while time.monotonic() - moved_at < IDLE_S:
            running.wake.clear()
            async with self._turns:
                pace = await following.step()
            if pace is Pace.OVER:
                return
            if following.digest.size != size:
                moved_at, size = time.monotonic(), following.digest.size
            if pace is Pace.CAUGHT_UP:
                running.end_round()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await running.wake.wait()
                except TimeoutError:
                    pass
