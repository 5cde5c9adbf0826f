"""Fifty readers that take a kilobyte a second: memory stays within credit, and the others do not notice."""

from __future__ import annotations

import os
import select
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from fabric.settings import FRAGMENT_BYTES_MAX, MIB, Settings
from tests.e2e.conftest import FabricUp
from tests.e2e.http_registry import HttpRegistry, digest_of

READERS = 50
LARGE = os.urandom(12 * FRAGMENT_BYTES_MAX)
SMALL = os.urandom(64 * 1024)
SAMPLES = 150
SLOW_S = 8.0

MEMORY_BYTES_MAX = {
    # Each reader has one fragment on its way to it and one being read; what is read ahead is bounded for all.
    "registry": READERS * 2 * FRAGMENT_BYTES_MAX + Settings().client_inflight_bytes_max,
    # What it works on, and what it has sent and the one registry, which asks for so much, has not read yet.
    "proxy": Settings().proxy_inflight_bytes_max + Settings().client_inflight_bytes_max,
    "chunk": Settings().chunk_inflight_bytes_max,
}
"""How much a role may grow, at most, above what it had before."""


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no VmRSS of {pid}")


class SlowReader:
    """Asks for a blob and takes a kilobyte at a time from a socket with a small buffer."""

    def __init__(self, netloc: str, path: str) -> None:
        host, _, port = netloc.partition(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((host, int(port)))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {netloc}\r\n\r\n".encode())
        self.taken = 0

    def take(self) -> None:
        readable, _, _ = select.select([self.socket], [], [], 0)
        if readable:
            data = self.socket.recv(1024)
            assert data, "the registry gave up on a slow reader"
            self.taken += len(data)


def latencies(registry: HttpRegistry, digest: str, between: Callable[[], None]) -> list[float]:
    found = []
    for _ in range(SAMPLES):
        began = time.monotonic()
        answer = registry.get_blob("quick/reader", digest)
        found.append(time.monotonic() - began)
        assert (answer.status, answer.body == SMALL) == (200, True)
        between()
    return found


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def test_slow_readers_cost_bounded_memory_and_no_one_else_any_time(fabric_up: FabricUp) -> None:
    registry = HttpRegistry(fabric_up.registry)
    assert registry.put_blob("slow/reader", LARGE).status == 201
    assert registry.put_blob("quick/reader", SMALL).status == 201
    large, small = digest_of(LARGE), digest_of(SMALL)
    assert registry.get_blob("slow/reader", large).body == LARGE
    alone = p99(latencies(registry, small, lambda: None))
    before = {name: resident_bytes(pid) for name, pid in fabric_up.pids().items()}

    netloc = urlsplit(fabric_up.registry).netloc
    readers = [SlowReader(netloc, f"/v2/slow/reader/blobs/{large}") for _ in range(READERS)]
    highest = dict(before)
    next_take = time.monotonic()

    def look() -> None:
        nonlocal next_take
        if time.monotonic() >= next_take:
            next_take += 1.0
            for reader in readers:
                reader.take()
        for name, pid in fabric_up.pids().items():
            highest[name] = max(highest[name], resident_bytes(pid))

    try:
        until = time.monotonic() + SLOW_S
        beside: list[float] = []
        while time.monotonic() < until:
            beside += latencies(registry, small, look)
    finally:
        for reader in readers:
            reader.socket.close()

    assert all(reader.taken > 2 * 1024 for reader in readers)
    for name, most in highest.items():
        limit = MEMORY_BYTES_MAX.get(name.split("-")[0], 64 * MIB)
        grown = most - before[name]
        assert grown <= limit, f"{name} grew by {grown / MIB:.0f} MiB, {limit / MIB:.0f} allowed"
    # Bounds, not a benchmark: a reader that is held up by slow ones waits for seconds.
    assert p99(beside) < max(10 * alone, 0.5), (p99(beside), alone)
    assert registry.get_blob("slow/reader", large).body == LARGE, "and afterwards all is as before"
    print(
        {name: f"{(most - before[name]) / MIB:.0f} MiB" for name, most in highest.items()}, alone, p99(beside)
    )
