"""A trial of the disk: a file is written, synced, read back, compared and removed, and each step is timed.

**What follows from a failure.**  A sync that fails, a read that fails, and other bytes than were written are
what the server's own records would meet: it must be read-only, as when it had met them itself, before
it confirms a write that cannot be read.  A file that cannot be created, written or removed is told and
changes nothing: the next batch of writes meets the same and is refused, whole, without loss; and a disk
without room has a rule of its own, the reserve.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fabric.errors import DiskFailed, NoSpace
from fabric.node.disk import Disk, File
from fabric.settings import MIB
from fabric.wire.messages import DiskCheck

NAME = "disk-check"
"""The file's; no data file is called so."""
TRIAL_BYTES = MIB


class Trial(msgspec.Struct, frozen=True):
    """What came of one."""

    check: DiskCheck
    is_unsafe: bool = False
    """What is confirmed might be lost: be read-only."""


def remove_leftover(disk: Disk) -> None:
    """What a process that died during a trial has left.  Raises DiskFailed."""
    if NAME in disk.names():
        disk.remove(NAME)


def try_disk(disk: Disk, content: bytes, wall_ms: Callable[[], int], clock_us: Callable[[], int]) -> Trial:
    """One trial with these bytes.  ``clock_us``: microseconds, never set back.  What fails is told."""
    began_at_ms = wall_ms()
    try:
        remove_leftover(disk)
        file = disk.create(NAME)
    except (DiskFailed, NoSpace) as error:
        return Trial(DiskCheck(checked_at_ms=began_at_ms, problem=error.message))
    try:
        trial = _write_and_read(file, content, clock_us)
    finally:
        file.close()
    try:
        disk.remove(NAME)
    except DiskFailed as error:
        trial = _told(trial, error.message)
    return Trial(msgspec.structs.replace(trial.check, checked_at_ms=began_at_ms), trial.is_unsafe)


def _write_and_read(file: File, content: bytes, clock_us: Callable[[], int]) -> Trial:
    began = clock_us()
    try:
        file.pwritev([content], 0)
    except (DiskFailed, NoSpace) as error:
        return Trial(DiskCheck(problem=error.message))
    written = clock_us()
    try:
        file.fdatasync()
        synced = clock_us()
        file.forget(0, len(content))
        found = file.pread(len(content), 0)
    except DiskFailed as error:
        return Trial(DiskCheck(problem=error.message), is_unsafe=True)
    check = DiskCheck(
        bytes=len(content),
        write_us=written - began,
        sync_us=synced - written,
        read_us=clock_us() - synced,
    )
    if found != content:
        text = "other bytes were read back than had been written and synced"
        return Trial(msgspec.structs.replace(check, problem=text), is_unsafe=True)
    return Trial(check)


def _told(trial: Trial, problem: str) -> Trial:
    """The first problem stays."""
    check = msgspec.structs.replace(trial.check, problem=trial.check.problem or problem)
    return Trial(check, trial.is_unsafe)
