"""``fabric chunk`` as a process: real disk, real LevelDB, kill -9."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from fabric.wire import codec
from fabric.wire.messages import (
    Assignment,
    Failed,
    FragmentData,
    FragmentStored,
    Heartbeat,
    Message,
    Ping,
    Pong,
    ReadFragment,
    StoreFragment,
)
from tests.unit.chunk.engine_bench import checksum_of, payload_of

pytestmark = pytest.mark.e2e

PATIENCE_MS = 20_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Master:
    """Answers heartbeats, when it is asked to, with RW in epoch 1 of group 1."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")

    def answer_one(self, server: Process) -> Heartbeat:
        for _ in range(PATIENCE_MS // 500):
            if self.socket.poll(500):
                break
            server.assert_runs()
        else:
            raise AssertionError(f"no heartbeat came: {server.end(signal.SIGTERM)}")
        route, _, frame = self.socket.recv_multipart()
        request_id, beat = codec.decode(frame)
        assert isinstance(beat, Heartbeat)
        answer = Assignment(1, 1, 1, "RW", [], [], 60_000)
        self.socket.send_multipart([route, b"", codec.encode(request_id, answer)])
        return beat

    def make_writable(self, server: Process) -> None:
        while self.answer_one(server).epoch != 1:
            pass


class Process:
    """One ``fabric chunk`` and a connection to it."""

    def __init__(self, context: zmq.Context[Any], master: Master, data: Path, *options: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "fabric", "chunk", "--name", "chunk-1"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--master", f"127.0.0.1:{master.port}"]
        self.process = subprocess.Popen([*command, "--data", str(data), *options], stderr=subprocess.PIPE)
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"tcp://127.0.0.1:{self.port}")
        self._asked = 0

    def send(self, message: Message, payload: bytes | None = None) -> int:
        self._asked += 1
        frames = [b"", codec.encode(self._asked, message)]
        self.socket.send_multipart(frames if payload is None else [*frames, payload])
        return self._asked

    def receive(self, patience_ms: int = PATIENCE_MS) -> tuple[int, Message, bytes | None] | None:
        if not self.socket.poll(patience_ms):
            return None
        frames = self.socket.recv_multipart()
        return *codec.decode(frames[1]), frames[2] if len(frames) > 2 else None

    def ask(self, message: Message, payload: bytes | None = None) -> tuple[Message, bytes | None]:
        asked = self.send(message, payload)
        answer = self.receive()
        assert answer is not None and answer[0] == asked, "no answer came"
        return answer[1:]

    def store(self, fid: int, size: int = 1000) -> int:
        payload = payload_of(fid, size)
        return self.send(StoreFragment(10_000, 1, 1, fid, checksum_of(payload)), payload)

    def assert_runs(self) -> None:
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}: {self.process.communicate()}")

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        self.socket.close(0)
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, stderr.decode()


@pytest.fixture
def master() -> Iterator[Master]:
    context: zmq.Context[Any] = zmq.Context()
    yield Master(context)
    context.destroy(0)


@pytest.fixture
def start(master: Master, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    context: zmq.Context[Any] = zmq.Context()
    started: list[Process] = []

    def start(*options: str) -> Process:
        started.append(Process(context, master, tmp_path / "data", *options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
    context.destroy(0)


def test_it_stores_stops_and_starts_again(start: Callable[..., Process], master: Master) -> None:
    one = start()
    master.make_writable(one)
    assert one.ask(Ping(1000))[0] == Pong("chunk", "chunk-1", "0.1.0")
    one.store(1)
    answer = one.receive()
    assert answer is not None and isinstance(answer[1], FragmentStored)
    status, stderr = one.end(signal.SIGTERM)
    assert status == 0, stderr

    two = start()
    message, payload = two.ask(ReadFragment(10_000, 1, 1, 0, 1000))
    assert isinstance(message, FragmentData)
    assert payload == payload_of(1, 1000)
    assert two.end(signal.SIGINT)[0] == 0


def test_what_was_acknowledged_before_a_kill_is_there_after_it(
    start: Callable[..., Process], master: Master, tmp_path: Path
) -> None:
    rng = random.Random(5)
    acknowledged: set[int] = set()
    for life in range(4):
        one = start()
        master.make_writable(one)
        asked = {}
        for fid in range(1 + life * 400, 401 + life * 400):
            asked[one.store(fid, 5000)] = fid
        enough = rng.randint(20, 300)
        while enough and (answer := one.receive()):
            assert isinstance(answer[1], FragmentStored)
            acknowledged.add(asked[answer[0]])
            enough -= 1
        one.end(signal.SIGKILL)
        if life == 2:
            shutil.rmtree(tmp_path / "data" / "index")
    last = start()
    for fid in acknowledged:
        message, payload = last.ask(ReadFragment(10_000, 1, fid, 0, 5000))
        assert isinstance(message, FragmentData), (fid, message)
        assert payload == payload_of(fid, 5000)
    assert len(acknowledged) > 60


def test_a_large_fragment_goes_in_and_out(start: Callable[..., Process], master: Master) -> None:
    one = start()
    master.make_writable(one)
    size = 4 * 1024 * 1024
    one.store(1, size)
    assert one.receive() is not None
    message, payload = one.ask(ReadFragment(10_000, 1, 1, 0, size))
    assert isinstance(message, FragmentData)
    assert payload == payload_of(1, size)


def test_a_directory_belongs_to_one_name(start: Callable[..., Process], tmp_path: Path) -> None:
    one = start()
    one.ask(Ping(1000))
    one.end(signal.SIGTERM)
    identity = json.loads((tmp_path / "data" / "server.json").read_text())
    assert identity["name"] == "chunk-1"
    assert len(identity["uuid"]) == 32

    other = start("--name", "chunk-2")
    _, stderr = other.process.communicate(timeout=30)
    assert other.process.returncode == 1
    assert "belongs to chunk-1, not to chunk-2" in stderr.decode()


def test_a_directory_in_use_is_refused(start: Callable[..., Process]) -> None:
    one = start()
    one.ask(Ping(1000))
    two = start()
    _, stderr = two.process.communicate(timeout=30)
    assert two.process.returncode == 1
    assert "in use by another process" in stderr.decode()
    assert isinstance(one.ask(Ping(1000))[0], Pong)


def test_a_directory_without_its_identity_is_refused(
    start: Callable[..., Process], master: Master, tmp_path: Path
) -> None:
    one = start()
    master.make_writable(one)
    one.store(1)
    assert one.receive() is not None
    one.end(signal.SIGTERM)
    (tmp_path / "data" / "server.json").unlink()
    two = start()
    _, stderr = two.process.communicate(timeout=30)
    assert two.process.returncode == 1
    assert "server.json" in stderr.decode()


def test_a_damaged_identity_is_named(start: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "server.json").write_text("{")
    one = start()
    _, stderr = one.process.communicate(timeout=30)
    assert one.process.returncode == 1
    assert "server.json" in stderr.decode()
    assert "Traceback" not in stderr.decode()


def test_without_a_master_it_reads_and_refuses_writes_and_ends_when_told(
    start: Callable[..., Process],
) -> None:
    one = start("--master", f"127.0.0.1:{free_port()}")
    one.store(1)
    answer = one.receive()
    assert answer is not None and isinstance(answer[1], Failed)
    began = time.monotonic()
    assert one.end(signal.SIGTERM)[0] == 0
    assert time.monotonic() - began < 10
