"""Threads for work that blocks: each lane runs its jobs in order of arrival and reports back.

Results go to one queue that the loop empties; an eventfd in the loop's poll set wakes it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping

import msgspec


class Lane(msgspec.Struct, frozen=True):
    """What runs a lane's jobs (``run(job) -> result``), and on how many threads."""

    run: Callable[[object], object]
    threads: int = 1


class Crashed(msgspec.Struct, frozen=True):
    """A job raised: a bug.  ``trace`` is its traceback."""

    lane: str
    trace: str


class Lanes:
    """The threads of one process."""

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._results: deque[object] = deque()
        self._queues: dict[str, queue.SimpleQueue[object]] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._closing = threading.RLock()
        """Held around uses of ``wake_fd``; reentrant, since a signal handler may wake us while we close."""
        for name, lane in lanes.items():
            jobs: queue.SimpleQueue[object] = queue.SimpleQueue()
            self._queues[name] = jobs
            for number in range(lane.threads):
                thread = threading.Thread(
                    target=self._work, args=(name, lane.run, jobs), name=f"{name}-{number}", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def submit(self, lane: str, job: object) -> None:
        """Queue a job; its result appears in ``results()``."""
        self._queues[lane].put(job)

    def wake(self) -> None:
        """Make the loop look; may be called from any thread or signal handler, after ``close`` too."""
        with self._closing:
            if not self._closed:
                os.eventfd_write(self.wake_fd, 1)

    def results(self) -> list[object]:
        """What has finished since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)
        finished = []
        while self._results:
            finished.append(self._results.popleft())
        return finished

    def close(self, timeout_s: float) -> None:
        """Let running and queued jobs finish, for at most ``timeout_s`` a thread."""
        for thread in self._threads:
            self._queues[thread.name.rpartition("-")[0]].put(None)
        for thread in self._threads:
            thread.join(timeout_s)
        with self._closing:
            self._closed = True
            os.close(self.wake_fd)

    def _work(self, name: str, run: Callable[[object], object], jobs: queue.SimpleQueue[object]) -> None:
        while (job := jobs.get()) is not None:
            try:
                result = run(job)
            except BaseException:  # noqa: BLE001  reported as Crashed, which ends the process loudly
                result = Crashed(name, traceback.format_exc())
            self._results.append(result)
            self.wake()
