"""What a chunk server copies that was down during many puts.

A group with a dead member takes no writes: the puts go to the other group.  So what the server misses of
its own group is what was under way when it was killed, and what was deleted since.  It is to copy the one,
apply the other and nothing else, and its group is to be writable without an operator.
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
DELETED = 500


class _Absence(NamedTuple):
    """One run."""

    put_meanwhile: int
    missed: int
    """Fragments that the peer held and the returning server did not."""
    copied: int
    writable_s: float
    per_s: float


def returning_server(work: Path, *, runs: int, count: int) -> list[Figure]:
    """So many puts of 1 KiB while a server is down, behind a group that has as many."""
    with Roles(work / "returning") as roles:
        roles.start_all(groups=2)
        absences = [_one(roles, count) for _ in range(runs)]
    told = (
        f"{count} puts of 1 KiB and {DELETED} deletes while it was down;"
        f" its group missed {absences[-1].missed}, the other took {absences[-1].put_meanwhile}"
    )
    return [
        figure(
            "return: copied beyond what it missed",
            [float(max(0, one.copied - one.missed)) for one in absences],
            "fragments",
            target=1,
            at_least=False,
            beside=told,
        ),
        figure(
            "return: writable after its start",
            [one.writable_s for one in absences],
            "s",
            target=5,
            at_least=False,
            beside="no operator; with the start of the process",
        ),
        figure(
            "return: puts beside it",
            [one.per_s for one in absences],
            "puts/s",
            target=100,
            at_least=True,
            beside="16 at once, one group of two",
        ),
    ]


def _one(roles: Roles, count: int) -> _Absence:
    prefix = uuid.uuid4().hex
    before = fill(roles.proxy, f"{prefix}/before", count, KIB)
    roles.kill(SERVER)
    # The master has to miss it first: until then its group is tried, and each try fails at once.
    roles.wait_empty(lambda: "" if roles.not_writable() else "nobody misses it", 30)
    other_before = roles.details(OTHER).fragments
    started = monotonic()
    fill(roles.proxy, f"{prefix}/meanwhile", count, KIB)
    per_s = count / (monotonic() - started)
    put_meanwhile = roles.details(OTHER).fragments - other_before
    uvloop.run(_delete(roles.proxy, before[:DELETED]))
    peer = roles.details(PEER)
    roles.start_chunk(SERVER)
    writable_s = roles.wait_writable()
    after = roles.details(SERVER)
    peer_after = roles.details(PEER)
    if after.fragments != peer_after.fragments:
        raise BenchError(f"{SERVER} has {after.fragments} fragments, {PEER} {peer_after.fragments}")
    missed = max(0, peer.fragments - (after.fragments - after.writes))
    return _Absence(put_meanwhile, missed, after.writes, writable_s, per_s)


async def _delete(proxy: str, paths: list[str]) -> None:
    store = FabricStore(proxy)
    await store.start()
    try:
        for first in range(0, len(paths), 100):
            await store.commit([DeleteOperation(path) for path in paths[first : first + 100]])
    finally:
        await store.close()
