"""Many fragments: memory, starts, reads of the disk for one get.

Each measurement is a process of its own that opens the store and says what it found, as JSON.
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
from typing import Any

from bench.engine.figures import Figure, figure
from bench.engine.store import Payloads, open_engine, read, write
from bench.engine.writes import CountingDisk
from bench.errors import BenchError
from bench.processes import memory
from fabric.chunk.engine import Engine

PAYLOAD_BYTES = 256
BATCH = 512
GETS = 20_000
TAIL = 30_000
"""Fragments written behind the last checkpoint when the process is killed: nearly the most there can be."""


def many_fragments(
    work: Path, *, count: int, runs: int, on_progress: Callable[[float], object] = lambda share: None
) -> list[Figure]:
    """Figures of a store of ``count`` fragments; ``on_progress`` hears how much of it is built: 0 to 1."""
    with tempfile.TemporaryDirectory(prefix="many-", dir=work) as directory:
        _build(Path(directory), count, on_progress)
        gets = [_child(directory, "get", count) for _ in range(runs)]
        clean = [_child(directory, "start", count) for _ in range(runs)]
        killed = []
        for number in range(runs):
            _kill(directory, count + number * TAIL)
            killed.append(_child(directory, "start", count))
    named = f"{count:,} fragments"
    process = f"process from exec to open: {max(run['process_s'] for run in clean):.2f} s"
    after = f"process: {max(run['process_s'] for run in killed):.2f} s"
    rates = f"{min(run['gets_per_s'] for run in gets):,.0f} gets/s"
    reads = [run["reads_per_get"] for run in gets]
    memories = [run["peak_bytes"] / 2**20 for run in gets]
    return [
        figure(f"{named}: resident memory", memories, "MiB", target=150, at_least=False),
        figure(
            f"{named}: start after a clean stop",
            [run["open_s"] for run in clean],
            "s",
            target=1,
            at_least=False,
            beside=process,
        ),
        figure(
            f"{named}: start after kill -9",
            [run["open_s"] for run in killed],
            "s",
            target=3,
            at_least=False,
            beside=after,
        ),
        figure(f"{named}: data reads a get", reads, "reads", target=1.001, at_least=False, beside=rates),
    ]


def _build(directory: Path, count: int, on_progress: Callable[[float], object]) -> None:
    payloads = Payloads(PAYLOAD_BYTES)
    with open_engine(directory) as engine:
        for first in range(0, count, BATCH):
            write(engine, map(payloads.item, range(first, min(count, first + BATCH))))
            on_progress(min(1.0, (first + BATCH) / count))


def _command(directory: str, what: str, count: int) -> list[str]:
    return [sys.executable, "-m", "bench.engine.million", directory, what, str(count)]


def _child(directory: str, what: str, count: int) -> dict[str, Any]:
    """Run a measurement in a process of its own."""
    started = perf_counter()
    with subprocess.Popen(_command(directory, what, count), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        elapsed_s = perf_counter() - started
        answer = process.stdout.readline()
    if process.returncode:
        raise BenchError(f"measuring {what} failed with status {process.returncode}")
    found: dict[str, Any] = json.loads(answer)
    return found | {"process_s": elapsed_s}


def _kill(directory: str, first_fid: int) -> None:
    """Have a process write, and end it by SIGKILL in the midst of it."""
    command = _command(directory, "put", first_fid)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)


def _measure(directory: Path, what: str, count: int) -> None:
    """What a child does.  The first line says that the engine is open, the second what it found."""
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
    print("written", flush=True)
    while True:
        write(engine, [payloads.item(first_fid)])  # Stored already: there is nothing to do for it.


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
