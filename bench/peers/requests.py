"""Many small requests over connections that stay open: how many a second, and how long the slowest take.

A closed loop, as wrk's: each connection sends its next request when the last is answered.  One thread and
``epoll``; a request costs this client about 15 µs.  wrk itself cannot ask with HEAD (it waits for the body
that the length promises), and cannot divide its connections over two servers; with GET it measures the
same, see docs/performance.md.
"""

from __future__ import annotations

import select
import socket
from array import array
from collections.abc import Sequence
from time import perf_counter
from urllib.parse import urlsplit

from bench.errors import BenchError
from bench.peers.http_client import MANIFEST_TYPE, body_bytes, parse_head
from bench.stats import Sample

PATIENCE_S = 30.0
RECEIVE_BYTES = 64 * 1024
CLOSED = "the server closed a connection that was to stay open"


class _Exchange:
    """One connection with one request under way."""

    def __init__(self, url: str, request: bytes) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.sent_at = 0.0
        self.received = b""

    def send(self) -> None:
        """A request is a few hundred bytes: an empty socket takes all of it."""
        self.received = b""
        self.sent_at = perf_counter()
        self.socket.sendall(self.request)


def ask_again_and_again(
    servers: Sequence[str], method: str, target: str, *, connections: int, seconds: float
) -> Sample:
    """The same request over so many connections, divided over the servers.  Every answer must be 200.

    Raises BenchError; OSError when a server cannot be reached.
    """
    exchanges = [_Exchange(url, _request(url, method, target)) for url in _divided(servers, connections)]
    by_descriptor = {exchange.socket.fileno(): exchange for exchange in exchanges}
    latencies = array("d")
    moved = 0
    poll = select.epoll()
    try:
        started = perf_counter()
        for descriptor, exchange in by_descriptor.items():
            poll.register(descriptor, select.EPOLLIN)
            exchange.send()
        waiting = len(exchanges)
        while waiting:
            ready = poll.poll(PATIENCE_S)
            if not ready:
                raise BenchError(f"{method} {target}: no answer for {PATIENCE_S:g} s")
            for descriptor, _ in ready:
                exchange = by_descriptor[descriptor]
                size = _receive(exchange, method)
                if size < 0:
                    continue
                now = perf_counter()
                latencies.append(now - exchange.sent_at)
                moved += size
                if now - started < seconds:
                    exchange.send()
                else:
                    waiting -= 1
        elapsed = perf_counter() - started
    except ConnectionError as error:
        raise BenchError(CLOSED) from error
    finally:
        poll.close()
        for exchange in exchanges:
            exchange.socket.close()
    return Sample(latencies, moved, elapsed)


def _divided(servers: Sequence[str], connections: int) -> list[str]:
    return [servers[index % len(servers)] for index in range(connections)]


def _request(url: str, method: str, target: str) -> bytes:
    host = urlsplit(url).netloc
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {MANIFEST_TYPE}\r\n\r\n".encode()


def _receive(exchange: _Exchange, method: str) -> int:
    """Body bytes of the answer when all of it is there, else -1.  Raises BenchError."""
    piece = exchange.socket.recv(RECEIVE_BYTES)
    if not piece:
        raise BenchError(CLOSED)
    exchange.received = received = exchange.received + piece
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return -1
    status, headers = parse_head(received[:end])
    if status != 200:
        raise BenchError(f"{method} was answered with status {status}")
    size = body_bytes(method, status, headers)
    return size if len(received) >= end + 4 + size else -1
