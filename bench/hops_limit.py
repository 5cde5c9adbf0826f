"""What a put costs before anybody thinks: the fabric's hops, bytes and syncs, by processes of a few lines.

A client sends all of its objects at once to a relay, as the fabric's does to a proxy.  The relay sends
them to three writers, each of which appends them to its file and calls ``fdatasync``; then it sends a row
for each to a fourth, as to a master, which does the same; then it answers, and the next round begins.
ZeroMQ over TCP on loopback, as everywhere.  Nothing is decoded, checked, looked up or counted, and every
round has all objects in it: what the fabric takes beyond this is its own work.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

import zmq

from bench.child import Child
from bench.errors import BenchError
from bench.stats import Sample
from fabric.node.process import set_up_process

REPLICAS = 3
ROW_BYTES = 80
"""About a row of the catalog."""
FILE_BYTES = 256 * 1024 * 1024
"""Written from the start again when it is full: so it never grows."""
PATIENCE_MS = 10_000


class HopsLimit:
    """Relay and writers, and a socket to the relay.  A context manager: leaving it ends all of them."""

    def __init__(self, directory: Path) -> None:
        """The writers' files are in ``directory``, for as long as this lasts.  Raises BenchError."""
        self._left = ExitStack()
        with self._left:
            files = Path(self._left.enter_context(tempfile.TemporaryDirectory(prefix="hops-", dir=directory)))
            writers = [self._start(_write, files / str(number)) for number in range(REPLICAS + 1)]
            relay = self._start(_relay, writers)
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            self._left.callback(context.term)
            self._socket = context.socket(zmq.DEALER)
            self._left.callback(self._socket.close, 0)
            self._socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
            self._socket.connect(relay)
            self._left = self._left.pop_all()

    def measure(self, object_bytes: int, in_flight: int, seconds: float) -> Sample:
        """Rounds of ``in_flight`` objects for so long.  Raises BenchError on silence."""
        frames = [b"o" * object_bytes] * in_flight
        latencies: list[float] = []
        started = now = perf_counter()
        try:
            while now - started < seconds:
                self._socket.send_multipart(frames)
                self._socket.recv()
                before, now = now, perf_counter()
                latencies += [now - before] * in_flight
        except zmq.Again as error:
            raise BenchError(f"the relay is silent for {PATIENCE_MS} ms") from error
        return Sample(latencies, len(latencies) * object_bytes, now - started)

    def __enter__(self) -> HopsLimit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.close()

    def _start(self, target: Callable[..., None], argument: object) -> str:
        """Its endpoint."""
        child = Child("a process of the hops", target, argument)
        self._left.callback(child.close)
        return child.address


def _listen(pipe: Connection) -> tuple[zmq.Context[zmq.Socket[bytes]], Any, Any]:
    """A context, a socket whose endpoint the parent knows, and what waits for it or for the parent's end."""
    set_up_process()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router: Any = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    poller: Any = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(pipe.fileno(), zmq.POLLIN)
    pipe.send(f"tcp://127.0.0.1:{port}")
    return context, router, poller


def _write(pipe: Connection, path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.posix_fallocate(descriptor, 0, FILE_BYTES)
    os.fsync(descriptor)
    context, router, poller = _listen(pipe)
    end = 0
    while True:
        ready = dict(poller.poll())
        if pipe.fileno() in ready:
            context.destroy(0)
            return
        route, *objects = router.recv_multipart()
        size = sum(map(len, objects))
        if end + size > FILE_BYTES:
            end = 0
        end += os.pwritev(descriptor, objects, end)
        os.fdatasync(descriptor)
        router.send_multipart([route, b""])


def _relay(pipe: Connection, endpoints: Sequence[str]) -> None:
    context, router, poller = _listen(pipe)
    peers: list[Any] = []
    for endpoint in endpoints:
        peer = context.socket(zmq.DEALER)
        peer.connect(endpoint)
        poller.register(peer, zmq.POLLIN)
        peers.append(peer)
    *replicas, master = peers
    client, count, missing = b"", 0, 0
    while True:
        for ready, _ in poller.poll():
            if ready == pipe.fileno():
                context.destroy(0)
                return
            frames = ready.recv_multipart()
            if ready is router:
                client, *objects = frames
                count, missing = len(objects), len(replicas)
                for replica in replicas:
                    replica.send_multipart(objects)
            elif ready is master:
                router.send_multipart([client, b""])
            else:
                missing -= 1
                if not missing:
                    master.send_multipart([b"r" * ROW_BYTES] * count)
