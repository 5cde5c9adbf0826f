"""The whole fabric in real processes, as ``fabric up`` runs it, in a directory of its own."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

READY_S_MAX = 60.0
"""For a loaded machine; the aim is 4."""
STOP_S_MAX = 30.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def needs(tool: str) -> str:
    """The path of a program that a test drives.  Absent it is skipped, but never on CI."""
    path = shutil.which(tool)
    if path is None:
        message = f"{tool} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


class FabricUp:
    """A running ``fabric up``."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.ready_line = ""
        self.ready_s = 0.0
        self.errors = data.parent / f"{data.name}.stderr"
        command = [
            sys.executable, "-m", "fabric", "up", "--data", str(data),
            "--http", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--master", "127.0.0.1:0",
            "--chunks", "127.0.0.1:0", *options,
        ]  # fmt: skip
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        self._started = time.monotonic()

    def wait_ready(self) -> FabricUp:
        """Until the line ``fabric is ready`` is there."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_S_MAX)
        self.ready_line = self.process.stdout.readline().decode() if readable else ""
        self.ready_s = time.monotonic() - self._started
        assert self.ready_line.startswith("fabric is ready"), self.story()
        return self

    def story(self) -> str:
        """What it and its roles have said, for a failed assertion."""
        logs = sorted((self.data / "logs").glob("*.log"))
        parts = [f"status {self.process.poll()}", self.errors.read_text()]
        return "\n".join(parts + [f"--- {log.name}\n{log.read_text()[-3000:]}" for log in logs])

    # --- what runs --------------------------------------------------------------------------------

    @property
    def run_json(self) -> dict[str, Any]:
        """The file as it is now."""
        run: dict[str, Any] = json.loads((self.data / "run.json").read_text())
        return run

    @property
    def registry(self) -> str:
        """``http://HOST:PORT``"""
        return str(self.run_json["registry"])

    @property
    def proxy(self) -> str:
        """``tcp://HOST:PORT``"""
        return str(self.run_json["proxy"])

    @property
    def master(self) -> str:
        """``tcp://HOST:PORT``"""
        return str(self.run_json["master"])

    def pid(self, name: str) -> int:
        """Of the role now running under this name; 0 while it is restarted."""
        return next(role["pid"] or 0 for role in self.run_json["roles"] if role["name"] == name)

    def pids(self) -> dict[str, int]:
        """All roles that run now."""
        return {role["name"]: role["pid"] for role in self.run_json["roles"] if role["pid"]}

    def last_pids(self) -> list[int]:
        """What was last known to run; none when it has stopped."""
        try:
            return list(self.pids().values())
        except FileNotFoundError:
            return []

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one role; returns the pid that got it."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def wait_restarted(self, name: str, old_pid: int) -> int:
        """The new pid of a role that was killed."""
        wait_until(lambda: self.pid(name) not in (0, old_pid), f"{name} to be restarted", self.story)
        return self.pid(name)

    # --- the command line -------------------------------------------------------------------------

    def fabric(self, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a ``fabric`` command."""
        command = [sys.executable, "-m", "fabric", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=60)

    def admin(self, *arguments: str) -> Any:
        """The JSON of a ``fabric admin`` command that must succeed."""
        result = self.fabric("admin", "--master", self.master, "--json", *arguments)
        assert result.returncode == 0, result.stderr.decode()
        return json.loads(result.stdout)

    def wait_writable(self) -> None:
        """Until every group takes writes."""

        def all_writable() -> bool:
            result = self.fabric("admin", "--master", self.master, "--json", "groups")
            if result.returncode != 0:
                return False
            return all(group["state"] == "WRITABLE" for group in json.loads(result.stdout))

        wait_until(all_writable, "all groups to be writable", self.story)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, if it has not; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S_MAX)
        finally:
            self.close()

    def close(self) -> None:
        """Make sure that nothing is left, whatever the test did."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def wait_until(
    condition: Callable[[], bool], what: str, story: Callable[[], str] = str, patience_s: float = 60.0
) -> None:
    """Look again until it holds; the test fails when it does not in ``patience_s``."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, f"waited {patience_s:g} s for {what}\n{story()}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Does the process run?  A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., FabricUp]]:
    """``start(*options, data=…)`` runs ``fabric up``; all are ended with the test."""
    running: list[FabricUp] = []

    def start(*options: str, data: Path | None = None) -> FabricUp:
        running.append(FabricUp(data or tmp_path / "data", *options))
        return running[-1]

    yield start
    pids = [pid for fabric in running for pid in fabric.last_pids()]
    for fabric in running:
        fabric.close()
    wait_until(lambda: not any(map(is_alive, pids)), "the children to end")


@pytest.fixture
def fabric_up(start: Callable[..., FabricUp]) -> FabricUp:
    """One group of three, ready."""
    return start().wait_ready()


@pytest.fixture(scope="module")
def shared_fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FabricUp]:
    """One for all tests of a file that harm nothing."""
    fabric = FabricUp(tmp_path_factory.mktemp("shared") / "data")
    try:
        yield fabric.wait_ready()
    finally:
        fabric.stop()
