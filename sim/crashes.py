"""What a power cut may leave of what was not synced: functions for ``FakeDisk.crash``."""

from __future__ import annotations

import random
from collections.abc import Callable

from sim.disk import Change, FakeDisk, Keep, NameChange, keep_nothing


def keep_all(change: Change | NameChange) -> int:
    return change.size


def keep_bytes_only(change: Change | NameChange) -> int:
    """All bytes survive, no name does."""
    return change.size if isinstance(change, Change) else 0


def keep_names_only(change: Change | NameChange) -> int:
    """All names survive, no bytes do."""
    return change.size if isinstance(change, NameChange) else 0


def keep_some(rng: random.Random) -> Keep:
    """Any subset survives, torn anywhere."""

    def keep(change: Change | NameChange) -> int:
        return rng.choice([0, change.size, rng.randint(0, change.size)])

    return keep


def keep_sectors(rng: random.Random) -> Keep:
    """For use with ``piece_bytes``: each piece survives whole or not at all."""

    def keep(change: Change | NameChange) -> int:
        return change.size if rng.random() < 0.6 else 0

    return keep


def ways_to_crash(rng: random.Random) -> list[Callable[[FakeDisk], FakeDisk]]:
    """What a power cut may leave: nothing unsynced, everything, only bytes, only names, any subset."""
    return [
        lambda disk: disk.crash(keep_nothing),
        lambda disk: disk.crash(keep_all),
        lambda disk: disk.crash(keep_bytes_only),
        lambda disk: disk.crash(keep_names_only),
        lambda disk: disk.crash(keep_some(rng)),
        lambda disk: disk.crash(keep_sectors(rng), piece_bytes=64),
        lambda disk: disk.crash(keep_some(rng), piece_bytes=512),
    ]
