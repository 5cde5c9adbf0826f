"""A fabric of our own to measure: started on free ports, ended and removed at the end."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.machine import ROOT
from bench.processes import Memory, memory

READY_S = 60.0
STOP_S = 30.0
READY_LINE = "fabric is ready"


class Cluster:
    """A running fabric as its ``run.json`` describes it."""

    def __init__(self, data: Path) -> None:
        self._run_file = data / "run.json"
        description = self.description()
        self.proxy: str = description["proxy"]
        self.registry: str = description["registry"]
        self.first_pids = self.pids()

    def description(self) -> dict[str, Any]:
        """The present ``run.json``.  Raises BenchError when the fabric has ended."""
        try:
            described: dict[str, Any] = json.loads(self._run_file.read_text())
        except FileNotFoundError:
            raise BenchError("the fabric ended while it was measured") from None
        return described

    def pids(self) -> dict[str, int]:
        """Name -> process id of each role that runs now."""
        return {role["name"]: role["pid"] for role in self.description()["roles"] if role["pid"]}

    def memory(self) -> dict[str, Memory]:
        """Name -> memory of each role that runs now."""
        found = {name: memory(pid) for name, pid in self.pids().items()}
        return {name: use for name, use in found.items() if use is not None}

    def restarted(self) -> list[str]:
        """Roles that are not the process that they were at first: their figures are worth little."""
        now = self.pids()
        return [name for name, pid in self.first_pids.items() if now.get(name) != pid]


@contextlib.contextmanager
def running_fabric(
    data: Path, replicas: int, groups: int, config: Path | None = None, *, ready_s: float = READY_S
) -> Iterator[Cluster]:
    """Start ``fabric up`` in ``data``, wait until it is ready, end it afterwards.

    Raises BenchError with what it said when it does not become ready.
    """
    command = [sys.executable, "-m", "fabric", "up", "--data", str(data)]
    command += ["--replicas", str(replicas), "--groups", str(groups)]
    for option in ("--http", "--proxy", "--master", "--chunks"):
        command += [option, "127.0.0.1:0"]
    if config is not None:
        command += ["--config", str(config)]
    # A session of its own: a Ctrl-C is for us, and we end it in order.
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    output = _Output(process)
    try:
        output.wait_for_ready(ready_s)
        yield Cluster(data)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        output.close()


class _Output:
    """Reads what the fabric prints, so that its pipe never fills, and sees when it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=40)
        self._told = threading.Event()
        self._ready = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for_ready(self, ready_s: float) -> None:
        """Raises BenchError when the fabric ends or says nothing of the kind in time."""
        self._told.wait(ready_s)
        if not self._ready:
            said = "".join(self._lines) or "nothing"
            raise BenchError(f"the fabric did not become ready within {ready_s:g} s; it said:\n{said}")

    def close(self) -> None:
        """After the process has ended."""
        self._thread.join(STOP_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.append(line)
                if line.startswith(READY_LINE):
                    self._ready = True
                    self._told.set()
        self._told.set()
