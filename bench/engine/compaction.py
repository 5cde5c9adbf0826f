"""What compaction does to readers: the p99 of small gets from a real chunk server, with and without it."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from bench.engine.figures import Figure, figure
from bench.engine.server import PATIENCE_MS, Client, chunk_server
from bench.engine.store import Payloads, delete, open_engine, write
from bench.errors import BenchError
from bench.stats import median, percentile
from fabric.chunk.compaction import SEAL
from fabric.chunk.data_file import file_name
from fabric.chunk.engine import Engine
from fabric.chunk.jobs import CompactDone, CompactFollow, ScrubDone, ScrubJob
from fabric.settings import KIB, MIB
from fabric.wire.messages import ChunkDetails, MaintainChunk

SMALL, LARGE = KIB, 4 * MIB
SMALL_COUNT = 4000
COMPACTION_S_MAX = 600.0
PASSIVE = "compaction_garbage_ratio = 1.0"
"""Nothing is compacted until it is asked for, at the default rate all the same."""


def gets_beside_compaction(work: Path, *, runs: int, large_count: int, seconds: float) -> Figure:
    """p99 of random 1 KiB gets, 4 in flight, while a file with 50 % garbage is compacted at the default rate.

    Each run starts a chunk server on a fresh copy of one store and gets for ``seconds`` before it is told to
    compact, from then until the old file is gone (copying, switching, removing), and for ``seconds`` after
    that.  A run is the p99 of the middle over that of before and after together.
    """
    ratios, beside_ms, idle_ms = [], [], []
    with tempfile.TemporaryDirectory(prefix="compaction-", dir=work) as directory:
        model = Path(directory) / "model"
        _build(model, large_count)
        for number in range(runs):
            data = Path(directory) / f"run-{number}"
            shutil.copytree(model, data)
            during, idle = _run(data, seconds)
            shutil.rmtree(data)
            beside_ms.append(percentile(during, 0.99) * 1000)
            idle_ms.append(percentile(idle, 0.99) * 1000)
            ratios.append(beside_ms[-1] / idle_ms[-1])
    beside = f"p99 {median(beside_ms):.2f} ms, idle {median(idle_ms):.2f} ms"
    return figure(
        "get 1 KiB beside compaction", ratios, "of idle p99", target=2, at_least=False, beside=beside
    )


def _run(data: Path, seconds: float) -> tuple[list[float], list[float]]:
    """Latencies beside compaction, and without it."""
    old_file = data / "fragments" / file_name(1)
    with chunk_server(data, PASSIVE) as server, Client(server.endpoint) as client:
        client.gets(_alive, SMALL, seconds=seconds / 4, goes_on=lambda: True)  # It warms up.
        idle = client.gets(_alive, SMALL, seconds=seconds, goes_on=lambda: True)
        if not isinstance(client.ask(MaintainChunk(PATIENCE_MS, "compact")), ChunkDetails):
            raise BenchError("the chunk server does not compact")
        during = client.gets(_alive, SMALL, seconds=COMPACTION_S_MAX, goes_on=old_file.exists)
        if old_file.exists():
            raise BenchError(f"compaction did not end within {COMPACTION_S_MAX:.0f} s")
        idle += client.gets(_alive, SMALL, seconds=seconds, goes_on=lambda: True)
    return during, idle


def _alive(rng: random.Random) -> int:
    """A small fragment that was not deleted."""
    return rng.randrange(SMALL_COUNT) * 2


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


def _seal(engine: Engine) -> None:
    """Begin a new data file: compaction may choose the one before."""
    done = engine.run(CompactFollow("write", SEAL))
    assert isinstance(done, CompactDone)
    if done.compaction.problem:
        raise BenchError(done.compaction.problem)
