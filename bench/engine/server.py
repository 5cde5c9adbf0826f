"""A real chunk server over a store that was built here, and a client of it."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import zmq

from bench.engine.store import GROUP, UUID
from bench.errors import BenchError
from fabric.wire import codec
from fabric.wire.messages import FragmentData, Message, Ping, Pong, ReadFragment, Request

if TYPE_CHECKING:
    from typing import TypeAlias

NAME = "chunk-1"
IN_FLIGHT = 4
PATIENCE_MS = 20_000

Fids: TypeAlias = "Callable[[random.Random], int]"
"""Picks the fragment to get next."""


class Server(NamedTuple):
    """A running chunk server."""

    pid: int
    endpoint: str


@contextlib.contextmanager
def chunk_server(data: Path, settings: str = "") -> Iterator[Server]:
    """A chunk server without a master: it reads, and keeps its house.  ``settings``: lines of TOML."""
    identity = {"format": 1, "name": NAME, "uuid": UUID.hex()}
    (data / "server.json").write_text(json.dumps(identity))
    config = data / "fabric.toml"
    config.write_text(f"[settings]\n{settings}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "fabric", "chunk", "--name", NAME, "--listen", address]
    command += ["--master", "127.0.0.1:1", "--data", str(data), "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield Server(process.pid, f"tcp://{address}")
    finally:
        process.terminate()
        process.wait(30)


class Client:
    """One DEALER socket to a chunk server.

    Made when the server answers.  Everything raises BenchError when it does not.
    """

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        self._socket.setsockopt(zmq.LINGER, 0)
        # A server that just starts must not be waited for longer than it needs.
        self._socket.setsockopt(zmq.RECONNECT_IVL, 5)
        self._socket.connect(endpoint)
        self._rng = random.Random(1)
        self._last_id = 0
        if not isinstance(self.ask(Ping(PATIENCE_MS)), Pong):
            raise BenchError("something else than a chunk server answers")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()

    def ask(self, request: Request) -> Message:
        """One request, its answer."""
        self._send(request)
        return self._receive()[1]

    def gets(self, fids: Fids, size: int, *, seconds: float, goes_on: Callable[[], bool]) -> list[float]:
        """Gets, ``IN_FLIGHT`` under way: latencies in seconds.

        For so long, or until ``goes_on`` says no (asked ten times a second).
        """
        latencies: list[float] = []
        sent_at: dict[int, float] = {}
        started = asked_at = perf_counter()

        def send_next() -> None:
            sent = perf_counter()
            sent_at[self._send(ReadFragment(PATIENCE_MS, GROUP, fids(self._rng), 0, size))] = sent

        for _ in range(IN_FLIGHT):
            send_next()
        stopping = False
        while sent_at:
            request_id, message = self._receive()
            now = perf_counter()
            if not isinstance(message, FragmentData):
                raise BenchError(f"a get was answered by {message}")
            latencies.append(now - sent_at.pop(request_id))
            if now - asked_at > 0.1:
                asked_at = now
                stopping = stopping or not goes_on()
            if not stopping and now - started < seconds:
                send_next()
        return latencies

    def _send(self, request: Request) -> int:
        self._last_id += 1
        self._socket.send_multipart([b"", codec.encode(self._last_id, request)])
        return self._last_id

    def _receive(self) -> tuple[int, Message]:
        try:
            return codec.decode(self._socket.recv_multipart()[1])
        except zmq.Again:
            raise BenchError("the chunk server does not answer") from None
