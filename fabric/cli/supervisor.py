"""Child processes that are kept alive, and stopped in order.

Each child has one task that walks a circle: spawn, wait for its end, wait a moment, spawn again.  The
first restart is immediate, since a lone crash should cost as little as possible; a child that keeps
dying is restarted ever more slowly.  Once ``stop`` is called nothing is spawned any more, and stage
after stage is asked to end, then killed.

Before ``settled`` is set, a child that ends by itself with an error twice in a row is a mistake in
the set-up (a foreign data directory, a port that was taken) and no accident: ``given_up`` then says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fabric.cli.main import PARENT_VARIABLE

STOP_S = 5.0
"""Between SIGTERM and SIGKILL."""
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_CHECK_S = 60.0
LOG_TAIL_LINES = 15
ERRORS_IN_A_ROW_MAX = 2


class Child(NamedTuple):
    """A process to keep: ``python -m fabric ARGUMENTS``.  Stages end in rising order."""

    name: str
    arguments: tuple[str, ...]
    stop_stage: int


class Backoff:
    """How long to wait before each restart: 0, then 0.2 s doubling to 5 s; anew after 10 s alive."""

    FIRST_S = 0.2
    LONGEST_S = 5.0
    HEALTHY_S = 10.0

    def __init__(self) -> None:
        self._restarts = 0

    def delay_s(self, alive_s: float) -> float:
        """The wait after a life of ``alive_s``."""
        if alive_s >= self.HEALTHY_S:
            self._restarts = 0
        self._restarts += 1
        if self._restarts == 1:
            return 0.0
        return min(self.LONGEST_S, self.FIRST_S * 2.0 ** min(self._restarts - 2, 30))


class Supervisor:
    """Keeps a fixed set of children running, from ``start`` to ``stop``."""

    def __init__(
        self,
        children: Sequence[Child],
        logs: Path,
        *,
        on_change: Callable[[dict[str, int]], None],
        report: Callable[[str], None],
    ) -> None:
        """``on_change`` gets name -> pid after each spawn; ``report`` gets lines for the operator."""
        self._children = children
        self._logs = logs
        self._on_change = on_change
        self._report = report
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.settled = False
        self.given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Spawn every child.  Raises OSError when a process cannot be made."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for child in self._children:
            self._running[child.name] = await self._spawn(child)
        self._changed()
        self._tasks = [asyncio.create_task(self._keep(child)) for child in self._children]
        self._tasks.append(asyncio.create_task(self._bound_logs()))

    async def stop(self) -> None:
        """End all children, stage by stage.  Cancelling this kills those that are left."""
        self._stopping.set()
        try:
            for stage in sorted({child.stop_stage for child in self._children}):
                await self._stop_stage(stage)
        finally:
            for process in self._running.values():
                _signal(process, signal.SIGKILL)
            await asyncio.gather(*self._tasks)

    def log_of(self, name: str) -> Path:
        """Where a child's output goes."""
        return self._logs / f"{name}.log"

    # --- one child --------------------------------------------------------------------------------

    async def _keep(self, child: Child) -> None:
        backoff, errors = Backoff(), 0
        clock = asyncio.get_running_loop().time
        while child.name in self._running:
            started = clock()
            status = await self._running[child.name].wait()
            del self._running[child.name]
            if self._stopping.is_set():
                return
            errors = errors + 1 if status > 0 else 0
            self._tell(child, status, give_up=not self.settled and errors >= ERRORS_IN_A_ROW_MAX)
            await self._pause(backoff.delay_s(clock() - started))
            await self._respawn(child, backoff)

    async def _respawn(self, child: Child, backoff: Backoff) -> None:
        """Spawn until it works; a machine short of memory or processes may recover."""
        while not self._stopping.is_set():
            try:
                process = await self._spawn(child)
            except OSError as error:
                self._report(f"{child.name} cannot be started: {error}")
                await self._pause(backoff.delay_s(0.0))
                continue
            self._running[child.name] = process
            if self._stopping.is_set():
                _signal(process, signal.SIGKILL)  # its stage may have passed while it was made
            self._changed()
            return

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        log = self.log_of(child.name)
        _shorten(log)
        with log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "fabric",
                *child.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(),
                # A Ctrl-C in the terminal is for us alone; we stop the children in order.
                start_new_session=True,
            )

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)

    def _changed(self) -> None:
        self._on_change({name: process.pid for name, process in self._running.items()})

    def _tell(self, child: Child, status: int, *, give_up: bool) -> None:
        ended = (
            f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        )
        text = f"{child.name} {ended}"
        if status > 0 and (give_up or self.settled):
            excerpt = tail(self.log_of(child.name), LOG_TAIL_LINES)
            text = "\n    ".join([f"{text}, after saying", *excerpt])
        if not give_up:
            self._report(
                f"{text}\n{child.name} is started again" if "\n" in text else f"{text}; started again"
            )
        elif not self.given_up.done():
            self.given_up.set_result(text)

    # --- all of them ------------------------------------------------------------------------------

    async def _stop_stage(self, stage: int) -> None:
        names = [child.name for child in self._children if child.stop_stage == stage]
        processes = [self._running[name] for name in names if name in self._running]
        for process in processes:
            _signal(process, signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in processes]
        if not waits:
            return
        _, late = await asyncio.wait(waits, timeout=STOP_S)
        if late:
            for process in processes:
                _signal(process, signal.SIGKILL)
            await asyncio.wait(late)

    async def _bound_logs(self) -> None:
        while not self._stopping.is_set():
            await self._pause(LOG_CHECK_S)
            for child in self._children:
                _shorten(self.log_of(child.name))


def tail(path: Path, lines_max: int) -> list[str]:
    """The last lines of a text file; none when it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16 * 1024))
            return file.read().decode(errors="replace").splitlines()[-lines_max:]
    except FileNotFoundError:
        return []


def _shorten(log: Path) -> None:
    """Keep a log and its predecessor within bounds; its writer appends, so it may be cut under it."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


def _environment() -> dict[str, str]:
    """Ours, made so that a child finds this very package and nothing in the working directory."""
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **os.environ,
        PARENT_VARIABLE: str(os.getpid()),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }
