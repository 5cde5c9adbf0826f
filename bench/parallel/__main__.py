"""``python -m bench.parallel``: pushes of one large blob, plain and in parts.

A push is timed from the first request to the answer that the blob is there; its digest is known before.  The
ways to push take turns, so that what else the machine does falls on all of them.
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
from typing import NamedTuple
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


class Scene(NamedTuple):
    """A fabric, and the ways in which the blob is pushed to it, in turn."""

    replicas: int
    registries: int
    connections: tuple[int, ...]
    """0: plain, by POST, PATCH and PUT."""
    link_mb_s: float = 0
    """What one connection can carry, in MB/s; 0: all that it can."""

    def name(self, connections: int) -> str:
        """Of a row, for people."""
        way = f"parts, {connections} connections" if connections else "plain, 1 connection"
        link = f", {self.link_mb_s:g} MB/s each" if self.link_mb_s else ""
        return f"{self.replicas} replicas, {self.registries} registries: {way}{link}"


class Push(NamedTuple):
    """One push."""

    seconds: float
    processor_s: dict[str, float]
    """By role; the client is not among them."""


class Row(NamedTuple):
    """What one way came to."""

    name: str
    size: int
    pushes: list[Push]

    @property
    def mb_s(self) -> float:
        """Of the median push."""
        return self.size / 1e6 / statistics.median(each.seconds for each in self.pushes)

    def processor_s(self, role: str) -> float:
        """Of the median push, in seconds for each GB."""
        used = statistics.median(each.processor_s.get(role, 0.0) for each in self.pushes)
        return used / (self.size / 1e9)


ROLES = ("registry", "proxy", "chunk", "master")


def scenes(slow_mb_s: float) -> list[Scene]:
    """All of them; the last is the one with the slow link."""
    fast = [
        Scene(replicas, registries, (0, 1, 4) if registries == 1 else (0, 4))
        for replicas in (1, 3)
        for registries in (1, 2)
    ]
    return [*fast, Scene(3, 1, (0, 1, 4, 8), slow_mb_s)]


@click.command()
@click.option("--mib", default=2048, show_default=True, help="Size of the blob.")
@click.option("--slow-mib", default=512, show_default=True, help="Size of the blob on the slow link.")
@click.option("--slow-mb-s", default=20.0, show_default=True, help="Of one connection on the slow link.")
@click.option("--part-mib", default=64, show_default=True, help="Size of a part.")
@click.option("--runs", default=2, show_default=True, help="Pushes in each way; the median counts.")
@click.option("--only", default="", help="Scenes that have a row whose name contains this.")
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
    rows: list[Row] = []
    for scene in scenes(slow_mb_s):
        if not any(only in scene.name(each) for each in scene.connections):
            continue
        size = (slow_mib if scene.link_mb_s else mib) * MIB
        try:
            measured = measure(scene, size, part_mib * MIB, runs, work)
        except BenchError as error:
            raise click.ClickException(f"{scene}: {error}") from error
        for row in measured:
            spent = "  ".join(f"{role} {row.processor_s(role):4.1f}" for role in ROLES)
            click.echo(f"{row.name:58} {row.mb_s:6.0f} MB/s   processor s/GB: {spent}")
        rows += measured
    if path is not None:
        document = {
            "machine": msgspec.to_builtins(about),
            "revision": msgspec.to_builtins(revision()),
            "part_bytes": part_mib * MIB,
            "rows": [
                {"name": row.name, "size": row.size, "pushes": [each._asdict() for each in row.pushes]}
                for row in rows
            ],
        }
        path.write_text(json.dumps(document, indent=2) + "\n")


def measure(scene: Scene, size: int, part_bytes: int, runs: int, work: Path) -> list[Row]:
    """All rows of one scene, their pushes in turn.  Raises BenchError."""
    scratch = work / f"parallel-{os.getpid()}"
    scratch.mkdir()
    rows = [Row(scene.name(each), size, []) for each in scene.connections]
    try:
        blob = Blob(scratch / "blob", size)
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(running_fabric(scratch / "data", scene.replicas, 1))
            addresses, pids = [cluster.registry], cluster.pids()
            for number in range(2, scene.registries + 1):
                process, address = stack.enter_context(_registry(cluster, scratch))
                pids[f"registry-{number}"] = process.pid
                addresses.append(address)
            if scene.link_mb_s:
                parts = urlsplit(cluster.registry)
                link = SlowLink(str(parts.hostname), int(parts.port or 0), int(scene.link_mb_s * 1e6))
                addresses = [stack.enter_context(link).url]
            for _ in range(runs):
                for row, connections in zip(rows, scene.connections, strict=True):
                    before = _processor_s(pids)
                    seconds = _push(connections, addresses, blob, part_bytes)
                    used = {name: now - before[name] for name, now in _processor_s(pids).items()}
                    row.pushes.append(Push(round(seconds, 3), _by_role(used)))
            verify(cluster.registry, blob, scratch)
            if cluster.restarted():
                raise BenchError(f"these died: {cluster.restarted()}")
        return rows
    finally:
        shutil.rmtree(scratch)


def _push(connections: int, addresses: list[str], blob: Blob, part_bytes: int) -> float:
    """Seconds of one push of new bytes."""
    if not connections:
        return push(addresses[0], blob, patch=True).elapsed_s
    blob.renew()
    with blob.path.open("rb") as file:
        return asyncio.run(_push_parts(connections, addresses, blob, file.fileno(), part_bytes))


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


def _by_role(spent: dict[str, float]) -> dict[str, float]:
    """Chunk servers together, and so on."""
    roles: dict[str, float] = {}
    for name, used in spent.items():
        role = name.rstrip("0123456789").rstrip("-")
        roles[role] = round(roles.get(role, 0.0) + used, 2)
    return roles


if __name__ == "__main__":
    main()
