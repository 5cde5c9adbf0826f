"""``python -m bench.parallel``: pushes of one large blob, plain and in parts.

A push is timed from the first request to the answer that the blob is there; its digest is known before.  Each
row has a fabric of its own, on an empty directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
import msgspec

from bench.cluster import Cluster, running_fabric
from bench.errors import BenchError
from bench.http import REPOSITORY, Blob, push, verify
from bench.machine import ROOT, machine, revision
from bench.parallel.slow_link import SlowLink
from fabric.cli.blob_push import BlobPush, new_session
from fabric.settings import MIB

START_S = 30.0


class Row(NamedTuple):
    """One way to push."""

    replicas: int
    registries: int
    connections: int
    """0: plain, by POST, PATCH and PUT."""
    link_mb_s: float
    """What one connection can carry, in MB/s; 0: all that it can."""

    @property
    def name(self) -> str:
        """For people."""
        way = f"parts, {self.connections} connections" if self.connections else "plain, 1 connection"
        link = f", {self.link_mb_s:g} MB/s each" if self.link_mb_s else ""
        return f"{self.replicas} replicas, {self.registries} registries: {way}{link}"


class Result(NamedTuple):
    """What it came to."""

    row: Row
    size: int
    seconds: list[float]
    processor_s: dict[str, float]
    """Of each role, over all runs."""
    client_s: float

    @property
    def mb_s(self) -> float:
        """Of the median run."""
        return self.size / 1e6 / statistics.median(self.seconds)


def rows(slow_mb_s: float) -> Iterator[tuple[Row, bool]]:
    """All rows, and whether the link is slow."""
    for replicas in (1, 3):
        for registries in (1, 2):
            for connections in (0, 1, 4) if registries == 1 else (4,):
                yield Row(replicas, registries, connections, 0), False
    for connections in (0, 1, 4, 8):
        yield Row(3, 1, connections, slow_mb_s), True


@click.command()
@click.option("--mib", default=2048, show_default=True, help="Size of the blob.")
@click.option("--slow-mib", default=256, show_default=True, help="Size of the blob on the slow link.")
@click.option("--slow-mb-s", default=20.0, show_default=True, help="Of one connection on the slow link.")
@click.option("--part-mib", default=64, show_default=True, help="Size of a part.")
@click.option("--runs", default=2, show_default=True, help="Pushes of each row; the median counts.")
@click.option("--only", default="", help="Rows whose name contains this.")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "bench" / "work", help="The disk.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures there.")
def main(
    mib: int,
    slow_mib: int,
    slow_mb_s: float,
    part_mib: int,
    runs: int,
    only: str,
    work: Path,
    path: Path | None,
) -> None:
    """Measure pushes of one large blob through one connection, and in parts through several."""
    work.mkdir(parents=True, exist_ok=True)
    about = machine(work)
    results = []
    for row, is_slow in rows(slow_mb_s):
        if only not in row.name:
            continue
        try:
            result = measure(row, (slow_mib if is_slow else mib) * MIB, part_mib * MIB, runs, work)
        except BenchError as error:
            raise click.ClickException(f"{row.name}: {error}") from error
        results.append(result)
        spent = ", ".join(f"{name} {used:.1f}" for name, used in sorted(result.processor_s.items()))
        click.echo(f"{row.name:58} {result.mb_s:7.0f} MB/s   processor seconds: {spent}")
    if path is not None:
        document = {
            "machine": msgspec.to_builtins(about),
            "revision": msgspec.to_builtins(revision()),
            "part_bytes": part_mib * MIB,
            "rows": [{**each.row._asdict(), **each._asdict(), "row": each.row.name} for each in results],
        }
        path.write_text(json.dumps(document, indent=2) + "\n")


def measure(row: Row, size: int, part_bytes: int, runs: int, work: Path) -> Result:
    """All runs of one row.  Raises BenchError."""
    scratch = work / f"parallel-{os.getpid()}"
    scratch.mkdir()
    try:
        blob = Blob(scratch / "blob", size)
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(running_fabric(scratch / "data", row.replicas, 1))
            addresses = [cluster.registry]
            others = {}
            for number in range(2, row.registries + 1):
                process, address = stack.enter_context(_registry(cluster, scratch))
                others[f"registry-{number}"] = process.pid
                addresses.append(address)
            if row.link_mb_s:
                parts = urlsplit(cluster.registry)
                link = SlowLink(str(parts.hostname), int(parts.port or 0), int(row.link_mb_s * 1e6))
                addresses = [stack.enter_context(link).url]
            pids = {**cluster.pids(), **others}
            before, client_before = _processor_s(pids), sum(os.times()[:4])
            seconds = [_push(row, addresses, blob, part_bytes) for _ in range(runs)]
            spent = {name: used - before[name] for name, used in _processor_s(pids).items()}
            client_s = sum(os.times()[:4]) - client_before
            verify(cluster.registry, blob, scratch)
            if cluster.restarted():
                raise BenchError(f"these died: {cluster.restarted()}")
        return Result(row, size, [round(each, 3) for each in seconds], _by_kind(spent), round(client_s, 2))
    finally:
        shutil.rmtree(scratch)


def _push(row: Row, addresses: list[str], blob: Blob, part_bytes: int) -> float:
    """Seconds of one push of new bytes."""
    if not row.connections:
        return push(addresses[0], blob, patch=True).elapsed_s
    blob.renew()
    with blob.path.open("rb") as file:
        return asyncio.run(_push_parts(row.connections, addresses, blob, file.fileno(), part_bytes))


async def _push_parts(
    connections: int, addresses: list[str], blob: Blob, descriptor: int, part_bytes: int
) -> float:
    async with new_session(connections) as session:
        started = perf_counter()
        pushing = BlobPush(session, addresses, REPOSITORY, descriptor, blob.size, lambda count: None)
        await pushing.begin()
        await pushing.send(connections, part_bytes)
        await pushing.finish(blob.digest, lambda count: None)
        return perf_counter() - started


@contextlib.contextmanager
def _registry(cluster: Cluster, scratch: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """One more registry process on the fabric's proxy."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "fabric", "registry", "--http", address]
    with (scratch / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--proxy", cluster.proxy.removeprefix("tcp://")], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        _wait_for(f"http://{address}/healthz")
        yield process, f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str) -> None:
    give_up_at = monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError as error:
            if monotonic() > give_up_at:
                raise BenchError(f"{url} does not answer: {error}") from error
            sleep(0.1)


def _processor_s(pids: dict[str, int]) -> dict[str, float]:
    """Processor time that each process has used so far."""
    tick = os.sysconf("SC_CLK_TCK")
    used = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used[name] = (int(fields[11]) + int(fields[12])) / tick
    return used


def _by_kind(spent: dict[str, float]) -> dict[str, Any]:
    """Chunk servers together, and so on."""
    kinds: dict[str, float] = {}
    for name, used in spent.items():
        kind = name.rstrip("0123456789").rstrip("-")
        kinds[kind] = round(kinds.get(kind, 0.0) + used, 2)
    return kinds


if __name__ == "__main__":
    main()
