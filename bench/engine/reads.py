"""Reads of what the system has in memory, against copying memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

from bench.engine.figures import Figure, figure
from bench.engine.store import Payloads, open_engine, read, write
from bench.stats import median
from fabric.settings import MIB

COUNT = 64


def cached_gets(work: Path, *, runs: int) -> Figure:
    """Gets of 4 MiB records from the page cache, each verified, against ``memcpy``.

    The limit copies as many bytes into one buffer that is used again; what is copied is as large as the
    store, so that neither finds it in the processor's caches.  The process is set up as that of a role is.
    """
    payloads = Payloads(4 * MIB, count=COUNT)
    size = payloads.size_bytes
    ratios, rates, limits = [], [], []
    with (
        tempfile.TemporaryDirectory(prefix="gets-", dir=work) as directory,
        open_engine(Path(directory)) as engine,
    ):
        for fid in range(COUNT):
            write(engine, [payloads.item(fid)])
        sources = [payloads.item(fid).payload for fid in range(COUNT)]
        target = memoryview(bytearray(size))
        for number in range(runs + 1):
            started = perf_counter()
            for fid in range(COUNT):
                read(engine, fid, size)
            between = perf_counter()
            for source in sources:
                target[:] = source
            ended = perf_counter()
            if number:  # The first one warms up.
                rates.append(COUNT * size / 1e9 / (between - started))
                limits.append(COUNT * size / 1e9 / (ended - between))
                ratios.append(rates[-1] / limits[-1])
    beside = f"{median(rates):.1f} GB/s, memcpy {median(limits):.1f} GB/s"
    return figure("get 4 MiB, cached", ratios, "of memcpy", target=0.5, at_least=True, beside=beside)
