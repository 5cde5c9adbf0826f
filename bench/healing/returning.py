"""What a chunk server copies that was down during many puts.

At default settings a group with a dead member takes no writes: the puts go to the other group.  So what the
server misses of its own group is what was under way when it was killed, and what was deleted since.  With
``min_write_replicas`` its group goes on without it, and it misses all of the puts.  In both cases it is to
copy what it missed, apply the deletions and nothing else, and its group is to be whole without an operator.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import uvloop

from bench.engine.figures import Figure, figure
from bench.errors import BenchError
from bench.healing.roles import Roles
from bench.healing.traffic import fill
from fabric.driver.fabric_store import FabricStore
from fabric.settings import KIB
from fabric.wire.messages import DeleteOperation

SERVER, PEER, OTHER = "chunk-1", "chunk-2", "chunk-4"
DELETED = 100


class _Absence(NamedTuple):
    """One run."""

    put_meanwhile: int
    missed: int
    """Fragments that the peer stored meanwhile."""
    copied: int
    writable_s: float
    per_s: float


def returning_server(work: Path, *, runs: int, count: int) -> list[Figure]:
    """So many puts of 1 KiB while a server is down, behind a group that has as many."""
    with Roles(work / "returning") as roles:
        roles.start_all(groups=2)
        sealed = [_one(roles, count, OTHER) for _ in range(runs)]
    with Roles(work / "degraded", "min_write_replicas = 2") as roles:
        roles.start_all(groups=1)
        degraded = [_one(roles, count, PEER) for _ in range(runs)]
    return _figures("return", sealed, count) + _figures("return to a group that went on", degraded, count)


def _figures(name: str, absences: list[_Absence], count: int) -> list[Figure]:
    last = absences[-1]
    told = f"{count} puts of 1 KiB and {DELETED} deletes while it was down; missed {last.missed} of the puts"
    beside = [float(max(0, one.copied - one.missed)) for one in absences]
    writable = [one.writable_s for one in absences]
    rates = [one.per_s for one in absences]
    return [
        figure(
            f"{name}: copied beyond what it missed",
            beside,
            "fragments",
            target=1,
            at_least=False,
            beside=f"{told}, copied {last.copied}",
        ),
        figure(
            f"{name}: writable after its start",
            writable,
            "s",
            target=10,
            at_least=False,
            beside="no operator; with the start of the process",
        ),
        figure(
            f"{name}: puts beside it",
            rates,
            "puts/s",
            target=100,
            at_least=True,
            beside=f"16 at once; {last.put_meanwhile} went where they could",
        ),
    ]


def _one(roles: Roles, count: int, takes_them: str) -> _Absence:
    """``takes_them``: the server that holds the puts that are made meanwhile."""
    prefix = uuid.uuid4().hex
    before = fill(roles.proxy, f"{prefix}/before", count, KIB)
    peer_writes = roles.details(PEER).writes
    roles.kill(SERVER)
    roles.wait_empty(lambda: _not_missed(roles), 30)
    held_before = roles.details(takes_them).fragments
    started = monotonic()
    fill(roles.proxy, f"{prefix}/meanwhile", count, KIB)
    per_s = count / (monotonic() - started)
    put_meanwhile = roles.details(takes_them).fragments - held_before
    uvloop.run(_delete(roles.proxy, before[:DELETED]))
    missed = roles.details(PEER).writes - peer_writes
    roles.start_chunk(SERVER)
    writable_s = roles.wait_empty(lambda: _not_back(roles), 120)
    after = roles.details(SERVER)
    if after.fragments != roles.details(PEER).fragments:
        raise BenchError(f"{SERVER} has {after.fragments} fragments, {PEER} has not")
    return _Absence(put_meanwhile, missed, after.writes, writable_s, per_s)


def _not_missed(roles: Roles) -> str:
    """Until the master misses it, its group is tried, and each try fails at once."""
    group = roles.status().groups[0]
    goes_on = group.state == "WRITABLE" and SERVER not in group.members
    return "" if goes_on or group.state == "SEALED" else f"group {group.group} is {group.state}"


def _not_back(roles: Roles) -> str:
    problem = roles.not_writable()
    if not problem and SERVER not in roles.status().groups[0].members:
        return f"{SERVER} is no member yet"
    return problem


async def _delete(proxy: str, paths: list[str]) -> None:
    store = FabricStore(proxy)
    await store.start()
    try:
        for first in range(0, len(paths), 100):
            await store.commit([DeleteOperation(path) for path in paths[first : first + 100]])
    finally:
        await store.close()
