"""``fabric master`` as a process: it starts, answers, stops, and refuses a store that is not whole."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fabric.master.leveldb_store import DIRECTORY, open_store
from fabric.node.ask import ask
from fabric.wire.messages import GetTopology, LeaseFids, Topology
from tests.unit.master.bench import Server

pytestmark = pytest.mark.e2e


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def arguments(data: Path) -> tuple[list[str], str]:
    endpoint = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "fabric", "master", "--listen", endpoint]
    return [*command, "--publish", f"127.0.0.1:{free_port()}", "--data", str(data)], f"tcp://{endpoint}"


@contextmanager
def running(data: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    command, endpoint = arguments(data)
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield process, endpoint
    finally:
        process.kill()
        process.communicate()


def run_refused(data: Path) -> tuple[int, str]:
    command, _ = arguments(data)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_it_answers_remembers_through_a_kill_and_stops_cleanly(tmp_path: Path) -> None:
    data = tmp_path / "new" / "master"
    with running(data) as (process, endpoint):
        first = ask(endpoint, LeaseFids(0, "test", 100), 10.0)
        process.kill()
    with running(data) as (process, endpoint):
        second = ask(endpoint, LeaseFids(0, "test", 100), 10.0)
        topology = ask(endpoint, GetTopology(0), 10.0)
        ask(endpoint, Server("chunk-1").beat(), 10.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0

    assert second.first == first.first + 100  # type: ignore[attr-defined]
    assert isinstance(topology, Topology)
    assert topology.term == 2


def test_a_damaged_store_is_named_and_not_opened(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / DIRECTORY / "CURRENT").unlink()

    status, text = run_refused(tmp_path)
    assert status == 1
    assert re.search(f"{tmp_path}.*damaged.*backup", text.replace("\n", " "))
    assert "Traceback" not in text


def test_a_store_in_use_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    status, text = run_refused(tmp_path)
    store.close()

    assert status == 1
    assert "already in use" in text
    assert "Traceback" not in text


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "fabric", "master", "--listen", endpoint, "--data", os.fspath(tmp_path)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert endpoint in done.stderr
    assert "Traceback" not in done.stderr
