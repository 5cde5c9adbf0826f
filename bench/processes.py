"""What processes use: memory and CPU time, read from /proc.

The peak of a process is the kernel's own (``VmHWM``): nothing between two looks is missed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
KIB = 1024


class Memory(NamedTuple):
    """Resident bytes of a process: the most since its start, and now."""

    peak_bytes: int
    now_bytes: int


class Usage(msgspec.Struct, frozen=True):
    """CPU use during one run, in cores: 1.0 is one core busy all the time."""

    roles: dict[str, float]
    clients: float
    others: float
    """Everything else on the machine: other programs, the kernel, curl."""


def memory(pid: int) -> Memory | None:
    """None when there is no such process any more."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if line.startswith("Vm"))
    if "VmHWM" not in fields:
        return None  # a zombie
    return Memory(*(int(fields[name].split()[0]) * KIB for name in ("VmHWM", "VmRSS")))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process since its start; 0.0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The name in parentheses may hold spaces; utime and stime are fields 14 and 15 of the line.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def exact_cpu_seconds(pid: int) -> float:
    """The same, by the scheduler's own count, of the threads that live; for short spans."""
    total_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            total_ns += int(path.read_text().split()[0])
    return total_ns / 1e9


def machine_cpu_seconds() -> float:
    """Time that all cores together have spent working since the machine's start."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts = fields[:7]
    return (user + nice + system + interrupts + soft_interrupts) * TICK_S


class Meter:
    """CPU use between making it and ``read``."""

    def __init__(self, roles: Mapping[str, int], clients: list[int]) -> None:
        """``roles``: name -> pid."""
        self._roles = dict(roles)
        self._clients = clients
        self._before = self._look()

    def read(self) -> Usage:
        """Cores used since the start of the meter."""
        now, before = self._look(), self._before
        elapsed = max(now.at - before.at, TICK_S)
        roles = {name: (now.roles[name] - before.roles[name]) / elapsed for name in self._roles}
        clients = (now.clients - before.clients) / elapsed
        everything = (now.machine - before.machine) / elapsed
        others = max(0.0, everything - sum(roles.values()) - clients)
        return Usage(
            {name: round(cores, 3) for name, cores in roles.items()}, round(clients, 3), round(others, 3)
        )

    def _look(self) -> _Look:
        return _Look(
            perf_counter(),
            {name: cpu_seconds(pid) for name, pid in self._roles.items()},
            sum(cpu_seconds(pid) for pid in self._clients),
            machine_cpu_seconds(),
        )


class _Look(NamedTuple):
    at: float
    roles: dict[str, float]
    clients: float
    machine: float
