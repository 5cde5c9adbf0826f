"""A process of the bench's own that answers at some address: tells it when it listens, ends when told."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

from bench.errors import BenchError

START_S = 30.0
JOIN_S = 5.0


class Child:
    """Runs ``target(pipe, *arguments)``, which sends its address by the pipe and ends when that closes."""

    def __init__(self, what: str, target: Callable[..., None], *arguments: object) -> None:
        """Raises BenchError, which names ``what``, when no address comes."""
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(START_S):
            self.close()
            raise BenchError(f"{what} did not start")
        self.address: str = self._pipe.recv()

    def terminate(self) -> None:
        """SIGTERM: for one that does not look at its pipe."""
        self._process.terminate()

    def close(self) -> None:
        """Close the pipe; returns when the process is gone."""
        self._pipe.close()
        self._process.join(JOIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
