"""What clients notice when a chunk server dies, stays away longer than its lease, and comes back."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

from bench.engine.figures import Figure, figure
from bench.healing.roles import Roles
from bench.healing.traffic import Traffic, failed, fill, longest_s
from fabric.settings import MIB

PUT_STALL_S = 2.0
GET_STALL_S = 0.5
FILLED = 48


def killed_server(work: Path, *, runs: int, away_s: float) -> list[Figure]:
    """Two groups, 8 writers and 8 readers of 1 MiB; kill -9 of a member, back after ``away_s``."""
    failures, puts, gets, before, back = [], [], [], [], []
    with Roles(work / "loss") as roles:
        roles.start_all(groups=2)
        names = fill(roles.proxy, "filled", FILLED, MIB)
        with Traffic(roles.proxy, names) as traffic:
            for run in range(runs):
                traffic.wait_calls(20)
                quiet_since = monotonic()
                traffic.wait_for(1.5)
                killed_at = monotonic()
                roles.kill(f"chunk-{run % 6 + 1}")
                traffic.wait_for(away_s)
                roles.start_chunk(f"chunk-{run % 6 + 1}")
                back.append(roles.wait_writable())
                put, get = (traffic.calls(kind, killed_at) for kind in ("put", "get"))
                failures.append(float(len(failed(put + get))))
                puts.append(longest_s(put))
                gets.append(longest_s(get))
                before.append(longest_s(traffic.calls("put", quiet_since, killed_at)))
                before.append(longest_s(traffic.calls("get", quiet_since, killed_at)))
    quiet = f"longest before the kill: put {max(before[::2]):.2f} s, get {max(before[1::2]):.2f} s"
    return [
        figure("kill: failed calls", failures, "calls", target=1, at_least=False, beside=_told(away_s)),
        figure("kill: longest put", puts, "s", target=PUT_STALL_S, at_least=False, beside=quiet),
        figure("kill: longest get", gets, "s", target=GET_STALL_S, at_least=False, beside=quiet),
        figure("kill: writable after its start", back, "s", target=5, at_least=False, beside="with its data"),
    ]


def _told(away_s: float) -> str:
    return f"8 writers, 8 readers of 1 MiB, 2 groups of 3; away for {away_s:g} s"
