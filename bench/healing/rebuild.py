"""An empty disk in place of a full one: how fast it fills, and whether anybody notices."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

from bench.disk_limit import append_durably
from bench.engine.figures import Figure, figure
from bench.errors import BenchError
from bench.healing.roles import Roles
from bench.healing.traffic import Traffic, failed, fill, p99_s
from bench.wire_limit import WireLimit
from fabric.errors import FabricError
from fabric.settings import FRAGMENT_BYTES_MAX, MIB

SERVER = "chunk-1"
COPIES = 3
PUT_BYTES = 1 * MIB
AT_ONCE = 4
LIMIT_S = 1.5
QUIET_S = 4.0
LOOK_S = 0.02
PATIENCE_S = 600.0


class _Rebuild(NamedTuple):
    """One run."""

    megabytes_per_s: float
    """From the first byte to the last."""
    limit: float
    limit_name: str
    whole_s: float
    """From the start of the process until its group takes writes."""
    failures: int
    p99_before_s: float
    p99_during_s: float
    others_megabytes_per_s: float
    """What clients had written to the same disk meanwhile, all copies."""


def empty_disk(work: Path, *, runs: int, total_bytes: int) -> list[Figure]:
    """A group of three with so much in fragments of 4 MiB; the other group takes writes beside it."""
    with Roles(work / "rebuild") as roles:
        roles.start_master()
        roles.start_group(1)
        roles.start_proxy()
        roles.wait_writable()
        names = fill(roles.proxy, "filled", total_bytes // FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX)
        roles.start_group(2)
        roles.wait_writable()
        with WireLimit() as wire:
            alone = [_one(roles, wire, work, names, traffic=False) for _ in range(runs)]
            beside = [_one(roles, wire, work, names, traffic=True) for _ in range(runs)]
    size = f"{total_bytes / 1e9:.1f} GB"
    return [
        _rate("rebuild: of the limit", alone, f"{size}, nobody else"),
        _rate("rebuild under load: of the limit", beside, f"{size}, 2 writers and 2 readers of 1 MiB"),
        figure(
            "rebuild under load: failed calls",
            [float(one.failures) for one in beside],
            "calls",
            target=1,
            at_least=False,
        ),
        figure(
            "rebuild under load: p99 of gets over before",
            [one.p99_during_s / one.p99_before_s for one in beside],
            "times",
            target=3,
            at_least=False,
            beside=f"p99 before {beside[-1].p99_before_s * 1000:.0f} ms,"
            f" during {beside[-1].p99_during_s * 1000:.0f} ms",
        ),
    ]


def _rate(name: str, rebuilds: list[_Rebuild], told: str) -> Figure:
    last = rebuilds[-1]
    return figure(
        name,
        [one.megabytes_per_s / one.limit for one in rebuilds],
        "of the limit",
        target=0.7,
        at_least=True,
        beside=f"{told}: {last.megabytes_per_s:.0f} MB/s, {last.limit_name} {last.limit:.0f} MB/s;"
        f" whole return {last.whole_s:.1f} s; clients wrote {last.others_megabytes_per_s:.0f} MB/s to it",
    )


def _one(roles: Roles, wire: WireLimit, work: Path, names: list[str], traffic: bool) -> _Rebuild:
    link = wire.measure(False, FRAGMENT_BYTES_MAX, AT_ONCE, LIMIT_S).megabytes_per_s
    disk_before = _disk(work)
    clients = 2 if traffic else 0
    with Traffic(
        roles.proxy, names, writers=clients, readers=clients, put_bytes=PUT_BYTES, pause_s=0.05
    ) as clients_at_work:
        quiet_since = monotonic()
        if traffic:
            clients_at_work.wait_calls(20)
            clients_at_work.wait_for(QUIET_S)
        roles.kill(SERVER)
        shutil.rmtree(roles.data(SERVER))
        started = monotonic()
        roles.start_chunk(SERVER)
        megabytes_per_s = _watch(roles)
        roles.wait_writable()
        ended = monotonic()
    disk = max(disk_before, _disk(work))
    limit, limit_name = min((disk, "disk"), (link, "link"))
    before = clients_at_work.calls("get", quiet_since, started)
    during = clients_at_work.calls("get", started, ended)
    puts = clients_at_work.calls("put", started, ended)
    return _Rebuild(
        megabytes_per_s,
        limit,
        limit_name,
        ended - started,
        len(failed(during + puts)),
        p99_s(before),
        p99_s(during),
        COPIES * sum(PUT_BYTES for put in puts if not put.error) / 1e6 / (ended - started),
    )


def _disk(work: Path) -> float:
    """MB/s of one file alone, when nothing that was written before is still on its way."""
    os.sync()
    return append_durably(work, FRAGMENT_BYTES_MAX, AT_ONCE, LIMIT_S, copies=1).megabytes_per_s


def _watch(roles: Roles) -> float:
    """MB/s from the first fragment to the last.  Raises BenchError when it does not come to an end."""
    goal = roles.details("chunk-2").live_bytes
    until = monotonic() + PATIENCE_S
    first: tuple[float, int] | None = None
    while monotonic() < until:
        sleep(LOOK_S)
        try:
            held = roles.details(SERVER).live_bytes
        except FabricError:
            continue  # it is starting
        now = monotonic()
        if first is None and held:
            first = (now, held)
        if first is not None and held >= goal:
            return (held - first[1]) / 1e6 / max(now - first[0], LOOK_S)
    raise BenchError(f"{SERVER} was not rebuilt within {PATIENCE_S:g} s")
