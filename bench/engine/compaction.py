"""What compaction does to readers: the p99 of small gets from a real chunk server, with and without it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import zmq

from bench.engine.figures import Figure, figure
from bench.engine.store import GROUP, UUID, Payloads, delete, open_engine, write
from bench.errors import BenchError
from bench.stats import median, percentile
from fabric.chunk.compaction import SEAL
from fabric.chunk.data_file import file_name
from fabric.chunk.engine import Engine
from fabric.chunk.jobs import CompactDone, CompactFollow, ScrubDone, ScrubJob
from fabric.settings import KIB, MIB
from fabric.wire import codec
from fabric.wire.messages import FragmentData, Ping, ReadFragment

SMALL, LARGE = KIB, 4 * MIB
SMALL_COUNT = 4000
IN_FLIGHT = 4
PATIENCE_MS = 20_000


def gets_beside_compaction(work: Path, *, runs: int, large_count: int, seconds: float) -> Figure:
    """p99 of random 1 KiB gets, 4 in flight, while a file with 50 % garbage is compacted at the default rate.

    Each run starts a chunk server on a fresh copy of one store: it compacts at once; when the old file
    is gone, the same gets are measured again.  A run is the ratio of the two.
    """
    ratios, beside_ms, idle_ms = [], [], []
    with tempfile.TemporaryDirectory(prefix="compaction-", dir=work) as directory:
        model = Path(directory) / "model"
        _build(model, large_count)
        for number in range(runs):
            data = Path(directory) / f"run-{number}"
            shutil.copytree(model, data)
            old_file = data / "fragments" / file_name(1)
            with _server(data) as endpoint, _Client(endpoint) as client:
                during = client.gets(seconds, old_file.exists)
                if not old_file.exists():
                    raise BenchError("compaction ended within the measurement: make the store larger")
                client.gets(600.0, old_file.exists)
                if old_file.exists():
                    raise BenchError("compaction did not end within ten minutes")
                idle = client.gets(seconds, lambda: True)
            beside_ms.append(percentile(during, 0.99) * 1000)
            idle_ms.append(percentile(idle, 0.99) * 1000)
            ratios.append(beside_ms[-1] / idle_ms[-1])
            shutil.rmtree(data)
    beside = f"p99 {median(beside_ms):.2f} ms, idle {median(idle_ms):.2f} ms"
    return figure(
        "get 1 KiB beside compaction", ratios, "of idle p99", target=2, at_least=False, beside=beside
    )


def _build(directory: Path, large_count: int) -> None:
    """A sealed file of small and large fragments, half of whose bytes are dead; scrubbed."""
    small, large = Payloads(SMALL), Payloads(LARGE)
    first_large = SMALL_COUNT * 2
    with open_engine(directory) as engine:
        for fid in range(large_count):
            write(engine, [large.item(first_large + fid)])
            share = range(fid * first_large // large_count, (fid + 1) * first_large // large_count)
            write(engine, map(small.item, share))
        _seal(engine)
        write(engine, [delete(fid) for fid in range(1, first_large + large_count, 2)])
        job = ScrubJob(MIB, anew=True)
        while True:
            done = engine.run(job)
            assert isinstance(done, ScrubDone)
            if not done.scrub.running:
                break
            job = ScrubJob(MIB)
    identity = {"format": 1, "name": "chunk-1", "uuid": UUID.hex()}
    (directory / "server.json").write_text(json.dumps(identity))


def _seal(engine: Engine) -> None:
    """Begin a new data file: compaction may choose the one before."""
    done = engine.run(CompactFollow("write", SEAL))
    assert isinstance(done, CompactDone)
    if done.compaction.problem:
        raise BenchError(done.compaction.problem)


@contextlib.contextmanager
def _server(data: Path) -> Iterator[str]:
    """A chunk server without a master: it reads, and keeps its house.  Gives its endpoint."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "fabric", "chunk", "--name", "chunk-1", "--listen", address]
    command += ["--master", "127.0.0.1:1", "--data", str(data)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield f"tcp://{address}"
    finally:
        process.terminate()
        process.wait(30)


class _Client:
    """A closed loop of gets over one DEALER socket."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self._rng = random.Random(1)
        self._next_id = 1
        self._exchange_ping()

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()

    def gets(self, seconds: float, goes_on: Callable[[], bool]) -> list[float]:
        """Latencies in seconds, for so long or until ``goes_on`` says no (asked ten times a second)."""
        latencies: list[float] = []
        sent_at: dict[int, float] = {}
        started = asked_at = perf_counter()
        for _ in range(IN_FLIGHT):
            self._send(sent_at)
        stopping = False
        while sent_at:
            request_id, message = codec.decode(self._receive()[1])
            if not isinstance(message, FragmentData):
                raise BenchError(f"a get was answered by {message}")
            now = perf_counter()
            latencies.append(now - sent_at.pop(request_id))
            if now - asked_at > 0.1:
                asked_at = now
                stopping = stopping or not goes_on()
            if not stopping and now - started < seconds:
                self._send(sent_at)
        return latencies

    def _send(self, sent_at: dict[int, float]) -> None:
        # Even fids are alive.
        fid = self._rng.randrange(SMALL_COUNT) * 2
        request = ReadFragment(PATIENCE_MS, GROUP, fid, 0, SMALL)
        self._next_id += 1
        sent_at[self._next_id] = perf_counter()
        self._socket.send_multipart([b"", codec.encode(self._next_id, request)])

    def _receive(self) -> list[bytes]:
        try:
            return self._socket.recv_multipart()
        except zmq.Again:
            raise BenchError("the chunk server does not answer") from None

    def _exchange_ping(self) -> None:
        self._socket.send_multipart([b"", codec.encode(1, Ping(PATIENCE_MS))])
        self._receive()
