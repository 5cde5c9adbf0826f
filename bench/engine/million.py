"""Many fragments: memory, starts, reads of the disk for one get.

Each measurement is a process of its own that opens the store and says what it found, as JSON; the last ones
are real chunk servers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from bench.engine.figures import Figure, figure
from bench.engine.server import Client, chunk_server
from bench.engine.store import Payloads, forget_pages, open_engine, read, write
from bench.engine.writes import CountingDisk
from bench.errors import BenchError
from bench.processes import memory
from bench.stats import median
from fabric.chunk.engine import Engine
from fabric.chunk.writer import CHECKPOINT_RECORDS
from fabric.node.process import set_up_process

PAYLOAD_BYTES = 256
BATCH = 512
GETS = 20_000
SERVER_GETS_S = 5.0
TAIL = 30_000
"""Fragments written behind the last checkpoint when the process is killed: nearly the most there can be."""

Found = dict[str, Any]
"""What a measurement found."""

WRITTEN = "written\n"
"""What a process says that has its tail written and goes on."""


def many_fragments(
    work: Path, *, count: int, runs: int, on_progress: Callable[[float], object] = lambda share: None
) -> list[Figure]:
    """Figures of a store of ``count`` fragments; ``on_progress`` hears how much of it is built: 0 to 1.

    Memory is the most that a process was resident with (``VmHWM``): one that opened the engine and made
    ``GETS`` random gets, and a chunk server that served them for some seconds.  A start is the time that
    opening the engine takes: after a clean stop with nothing of the store in the system's memory, as after
    a boot; after SIGKILL as the killed process left it.  Data reads are counted between engine and disk.
    """
    with tempfile.TemporaryDirectory(prefix="many-", dir=work) as directory:
        _build(Path(directory), count, on_progress)
        gets = [_child(directory, "get", count) for _ in range(runs)]
        clean, killed = [], []
        for _ in range(runs):
            forget_pages(Path(directory))
            clean.append(_child(directory, "start", count))
        for number in range(runs):
            _kill(directory, count + number * 2 * TAIL)
            killed.append(_child(directory, "start", count))
        served = [_serve(Path(directory), count) for _ in range(runs)]
    return _figures(f"{count:,} fragments", gets, clean, killed, served)


class _Served(NamedTuple):
    """What a chunk server needed."""

    answers_s: float
    """From exec to its first answer."""
    peak_bytes: int


def _figures(
    named: str, gets: list[Found], clean: list[Found], killed: list[Found], served: list[_Served]
) -> list[Figure]:
    rates = f"{median(run['gets_per_s'] for run in gets):,.0f} gets/s"
    memories = [run["peak_bytes"] / 2**20 for run in gets]
    servers = [run.peak_bytes / 2**20 for run in served]
    answers = f"server from exec to its first answer: {median(run.answers_s for run in served):.2f} s"
    after = f"process from exec to open: {median(run['process_s'] for run in killed):.2f} s"
    starts, restarts = [run["open_s"] for run in clean], [run["open_s"] for run in killed]
    reads = [run["reads_per_get"] for run in gets]
    return [
        figure(f"{named}: resident memory", memories, "MiB", target=150, at_least=False),
        figure(f"{named}: resident memory, server", servers, "MiB", target=150, at_least=False),
        figure(f"{named}: start, clean", starts, "s", target=1, at_least=False, beside=answers),
        figure(f"{named}: start after kill -9", restarts, "s", target=3, at_least=False, beside=after),
        figure(f"{named}: data reads a get", reads, "reads", target=1.001, at_least=False, beside=rates),
    ]


def _serve(directory: Path, count: int) -> _Served:
    """Start a chunk server, and have it serve random gets."""
    started = perf_counter()
    with chunk_server(directory) as server, Client(server.endpoint) as client:
        answers_s = perf_counter() - started
        client.gets(
            lambda rng: rng.randrange(count), PAYLOAD_BYTES, seconds=SERVER_GETS_S, goes_on=lambda: True
        )
        use = memory(server.pid)
    if use is None:
        raise BenchError("the chunk server ended while it was measured")
    return _Served(answers_s, use.peak_bytes)


def _build(directory: Path, count: int, on_progress: Callable[[float], object]) -> None:
    payloads = Payloads(PAYLOAD_BYTES)
    with open_engine(directory) as engine:
        for first in range(0, count, BATCH):
            write(engine, map(payloads.item, range(first, min(count, first + BATCH))))
            on_progress(min(1.0, (first + BATCH) / count))


def _command(directory: str, what: str, count: int) -> list[str]:
    return [sys.executable, "-m", "bench.engine.million", directory, what, str(count)]


def _child(directory: str, what: str, count: int) -> Found:
    """Run a measurement in a process of its own."""
    started = perf_counter()
    with subprocess.Popen(_command(directory, what, count), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        elapsed_s = perf_counter() - started
        answer = process.stdout.readline()
    if process.returncode:
        raise BenchError(f"measuring {what} failed with status {process.returncode}")
    found: Found = json.loads(answer)
    return found | {"process_s": elapsed_s}


def _kill(directory: str, first_fid: int) -> None:
    """Have a process write, and end it by SIGKILL in the midst of it."""
    command = _command(directory, "put", first_fid)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if process.stdout.readline() != WRITTEN:
            raise BenchError("the process that was to be killed has failed")
        process.send_signal(signal.SIGKILL)


def _measure(directory: Path, what: str, count: int) -> None:
    """What a child does.  The first line says that the engine is open, the second what it found."""
    set_up_process()
    started = perf_counter()
    disk = CountingDisk(directory / "fragments")
    with open_engine(directory, disk) as engine:
        found = {"open_s": perf_counter() - started}
        print("open", flush=True)
        if what == "put":
            _put_until_killed(engine, count)
        if what == "get":
            found |= _get(engine, disk, count)
        use = memory(os.getpid())
        assert use is not None
        found["peak_bytes"] = use.peak_bytes
    print(json.dumps(found), flush=True)


def _put_until_killed(engine: Engine, first_fid: int) -> None:
    payloads = Payloads(PAYLOAD_BYTES)
    for first in range(first_fid, first_fid + TAIL, 64):
        write(engine, map(payloads.item, range(first, first + 64)))
    print(WRITTEN, end="", flush=True)
    # A few more, until SIGKILL strikes; never so many that a checkpoint would come.
    for first in range(first_fid + TAIL, first_fid + TAIL + CHECKPOINT_RECORDS // 16, 16):
        write(engine, map(payloads.item, range(first, first + 16)))
    signal.pause()


def _get(engine: Engine, disk: CountingDisk, count: int) -> dict[str, float]:
    rng = random.Random(1)
    reads = disk.reads
    started = perf_counter()
    for _ in range(GETS):
        read(engine, rng.randrange(count), PAYLOAD_BYTES)
    return {
        "gets_per_s": GETS / (perf_counter() - started),
        "reads_per_get": (disk.reads - reads) / GETS,
    }


if __name__ == "__main__":
    _measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
