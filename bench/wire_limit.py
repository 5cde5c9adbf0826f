"""What ZeroMQ can do between two processes on this machine, one hop, with the fabric's frames.

A DEALER keeps as many requests in flight as the case has writers (a stream: its window of fragments);
a ROUTER in another process answers each.  ``put``: the request carries the payload.
``get``: the answer does.  The frames are those of the fabric, ``[empty][header][payload]``; nothing
is decoded or stored.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from time import perf_counter
from types import TracebackType
from typing import Any

import zmq

from bench.child import Child
from bench.errors import BenchError
from bench.stats import Sample
from fabric.node.frames import COPY_BELOW_BYTES
from fabric.settings import FRAGMENT_BYTES_MAX, Settings

HEADER_BYTES = 96
"""About that of a store request."""
PATIENCE_MS = 10_000


class WireLimit:
    """An answering process and a socket to it.  A context manager: leaving it ends both."""

    def __init__(self) -> None:
        self._child = Child("the ZeroMQ peer", _answer)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        self._socket.connect(self._child.address)

    def measure(self, writes: bool, object_bytes: int, concurrency: int, seconds: float) -> Sample:
        """Objects over the wire, each one message or a stream of fragments.  Raises BenchError on silence."""
        payload = bytes(min(object_bytes, FRAGMENT_BYTES_MAX))
        fragments = max(1, -(-object_bytes // FRAGMENT_BYTES_MAX))
        window = max(1, Settings().client_window_bytes // FRAGMENT_BYTES_MAX)
        in_flight = concurrency if fragments == 1 else concurrency * window
        header = (len(payload) if not writes else 0).to_bytes(8, "big").ljust(HEADER_BYTES, b"\0")
        request = [b"", header, payload] if writes else [b"", header]
        sent_at: list[float] = []
        latencies: list[float] = []
        try:
            started = perf_counter()
            for _ in range(in_flight):
                sent_at.append(perf_counter())
                _send(self._socket, request)
            while len(latencies) < len(sent_at):
                self._socket.recv_multipart(copy=False)
                now = perf_counter()
                latencies.append(now - sent_at[len(latencies)])
                # Whole objects only: a stream is not cut in the middle.
                if now - started < seconds or len(sent_at) % fragments:
                    sent_at.append(now)
                    _send(self._socket, request)
            elapsed = perf_counter() - started
        except zmq.Again as error:
            raise BenchError(f"the ZeroMQ peer is silent for {PATIENCE_MS} ms") from error
        moved = len(latencies) * len(payload)
        return Sample(latencies[::fragments], moved, elapsed)

    def __enter__(self) -> WireLimit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close(linger=0)
        self._context.term()
        self._child.close()


def _send(socket: Any, frames: list[bytes]) -> None:
    """As the fabric sends: a big payload by reference, a small one copied."""
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        flags = zmq.SNDMORE if index < last else 0
        socket.send(frame, flags, copy=len(frame) < COPY_BELOW_BYTES)


def _answer(pipe: Connection) -> None:
    """Answer every request until the parent closes the pipe."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router: Any = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    pipe.send(f"tcp://127.0.0.1:{port}")
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(pipe.fileno(), zmq.POLLIN)
    payloads: dict[int, bytes] = {}
    while True:
        ready = dict(poller.poll())
        if pipe.fileno() in ready:
            router.close(linger=0)
            context.term()
            return
        while router.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            frames = router.recv_multipart(copy=False)
            wanted = int.from_bytes(frames[2].bytes[:8], "big")
            answer = [frames[0].bytes, b"", frames[2].bytes]
            if wanted:
                answer.append(payloads.setdefault(wanted, bytes(wanted)))
            _send(router, answer)
