"""The roles of one fabric as processes of ours, that can be killed and started one by one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError
from bench.machine import ROOT
from fabric.cli.main import PARENT_VARIABLE
from fabric.cli.ports import choose_port, next_port
from fabric.errors import FabricError
from fabric.node.ask import ask
from fabric.wire.messages import ChunkDetails, ClusterStatus, GetStatus, MaintainChunk

CHUNKS_MAX = 20
ASK_S = 1.0
STOP_S = 20.0
LOOK_S = 0.02


class Roles:
    """A context manager: leaving it ends all of them and removes their data."""

    def __init__(self, work: Path, settings: str = "", replicas: int = 3) -> None:
        """``settings``: lines of TOML.  Nothing runs yet."""
        self._work = work
        self._replicas = replicas
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._groups = 1
        first = choose_port("tcp://127.0.0.1:0", in_a_row=CHUNKS_MAX + 3)
        self.master, self.proxy = first, next_port(first, 2)
        self._first_chunk = next_port(first, 3)
        self._work.mkdir(parents=True)
        (self._work / "fabric.toml").write_text(f"[settings]\n{settings}\n")

    def __enter__(self) -> Roles:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._running)):
            self._running[name].send_signal(signal.SIGCONT)
            self._running[name].terminate()
        for process in self._running.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._work, ignore_errors=True)

    # --- starting and ending ----------------------------------------------------------------------

    def start_all(self, groups: int) -> None:
        """Master, proxy and so many groups; returns when all groups take writes."""
        self.start_master()
        for group in range(1, groups + 1):
            self.start_group(group)
        self.start_proxy()
        self.wait_writable()

    def start_master(self) -> None:
        """It needs nobody."""
        arguments = ["--data", str(self._work / "master"), "--replicas", str(self._replicas)]
        self._start("master", "master", self.master, arguments)

    def start_proxy(self) -> None:
        """It finds the others through the master."""
        self._start("proxy", "proxy", self.proxy, ["--master", self.master.removeprefix("tcp://")])

    def start_group(self, group: int) -> None:
        """All chunk servers that are for a group."""
        self._groups = max(self._groups, group)
        for name in self.members(group):
            self.start_chunk(name)

    def members(self, group: int) -> list[str]:
        """Names of the chunk servers that are for a group."""
        first = (group - 1) * self._replicas + 1
        return [f"chunk-{number}" for number in range(first, first + self._replicas)]

    def start_chunk(self, name: str) -> None:
        """A chunk server that does not run; with the data it left, if there are any."""
        group = (_number(name) - 1) // self._replicas + 1
        arguments = ["--name", name, "--master", self.master.removeprefix("tcp://")]
        arguments += ["--data", str(self.data(name)), "--group", str(group)]
        self._start(name, "chunk", self.endpoint(name), arguments)

    def _start(self, name: str, role: str, endpoint: str, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "fabric", role, "--listen", endpoint.removeprefix("tcp://")]
        command += [*arguments, "--config", str(self._work / "fabric.toml")]
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        with (self._work / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)

    def kill(self, name: str) -> None:
        """SIGKILL; returns when it is gone."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def data(self, name: str) -> Path:
        """The directory of a chunk server."""
        return self._work / name

    def endpoint(self, name: str) -> str:
        """Where a chunk server answers."""
        return next_port(self._first_chunk, _number(name) - 1)

    # --- looking ----------------------------------------------------------------------------------

    def details(self, name: str) -> ChunkDetails:
        """What a chunk server says of itself.  Raises FabricError while it does not answer."""
        details = ask(self.endpoint(name), MaintainChunk(0, "status"), ASK_S)
        assert isinstance(details, ChunkDetails)
        return details

    def status(self) -> ClusterStatus:
        """What the master says of all.  Raises FabricError while it does not answer."""
        status = ask(self.master, GetStatus(0), ASK_S)
        assert isinstance(status, ClusterStatus)
        return status

    def not_writable(self) -> str:
        """Why some group takes no writes; empty when all do, and all of their members say so."""
        try:
            groups = self.status().groups
            for group in groups:
                if group.state != "WRITABLE":
                    return f"group {group.group} is {group.state}: {group.reason}"
                for name in group.members:
                    details = self.details(name)
                    if (details.mode, details.epoch) != ("RW", group.epoch):
                        return f"{name} is {details.mode} in epoch {details.epoch}, not {group.epoch}"
        except FabricError as error:
            return error.message
        # A group is known with the first of its servers: one may be ready before another is there at all.
        return "" if len(groups) >= self._groups else f"there are {len(groups)} of {self._groups} groups"

    def wait_writable(self, patience_s: float = 60.0) -> float:
        """Until all groups take writes; how long that took, in seconds.  Raises BenchError."""
        return self.wait_empty(self.not_writable, patience_s)

    def wait_empty(self, look: Callable[[], str], patience_s: float) -> float:
        """Until ``look`` finds nothing; how long that took.  Raises BenchError with what it found."""
        started = time.monotonic()
        while problem := look():
            if time.monotonic() > started + patience_s:
                raise BenchError(f"waited {patience_s:g} s: {problem}\n{self._logs()}")
            time.sleep(LOOK_S)
        return time.monotonic() - started

    def _logs(self) -> str:
        logs = sorted(self._work.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-800:]}" for log in logs)


def _number(name: str) -> int:
    return int(name.removeprefix("chunk-"))
