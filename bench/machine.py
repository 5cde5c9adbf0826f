"""The machine and the code that a result belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]


class Machine(msgspec.Struct, frozen=True):
    """What a figure depends on besides the code."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    file_system: str
    """Type and device of the file system that holds the data."""
    load_before: float
    """One-minute load average when the benchmark began: above 0.5, figures are disturbed."""


class Revision(msgspec.Struct, frozen=True):
    """The commit that was measured."""

    commit: str
    """Empty outside a git checkout."""
    changed: bool
    """Files of the fabric differ from the commit."""


def machine(data: Path) -> Machine:
    """This machine, and the file system of ``data``."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        file_system=file_system(data, Path("/proc/self/mounts").read_text()),
        load_before=round(os.getloadavg()[0], 2),
    )


def file_system(path: Path, mounts: str) -> str:
    """Type and device of the mount that holds ``path``; ``mounts`` as in /proc/self/mounts."""
    best = ("", "unknown")
    for line in mounts.splitlines():
        device, where, kind = line.split()[:3]
        where = where.replace("\\040", " ")
        if path.resolve().is_relative_to(where) and len(where) >= len(best[0]):
            best = (where, f"{kind} on {device}")
    return best[1]


def revision() -> Revision:
    """Of the checkout that this file lies in."""
    commit = _git("rev-parse", "HEAD")
    return Revision(commit, bool(commit and _git("status", "--porcelain", "--", "fabric")))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=10
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
