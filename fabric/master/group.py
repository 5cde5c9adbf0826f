"""A group as the master has it in memory, and the words for what it and its members are."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from fabric.master.records import GroupRecord

FORMING, SEALED, SYNCING, WRITABLE = "FORMING", "SEALED", "SYNCING", "WRITABLE"
WAIT, SYNC, RW, RO = "WAIT", "SYNC", "RW", "RO"

Condition: TypeAlias = tuple[tuple[str, int, bool], ...]
"""Of each member: name, session (0 when it is not alive), whether it may take no writes."""


class Group(msgspec.Struct, eq=False):
    """What the group is to be; ``record`` has what it is, durably."""

    group: int
    replicas: int
    members: list[str]
    learners: dict[str, str] = {}
    """As in ``GroupRecord``."""
    draining: bool = False
    record: GroupRecord | None = None
    condition: Condition | None = None
    """What the present epoch rests on; None when this life of the master made no epoch yet."""
    writable: bool = False
    raising: bool = False
    """A new epoch, or the registration of a learner, is on its way to the store."""

    @property
    def away(self) -> list[str]:
        """Members that the group goes on without: they come back into their own places."""
        return [learner for learner, replaced in self.learners.items() if learner == replaced]

    @property
    def missing(self) -> int:
        """Members that have not registered yet."""
        return self.replicas - len(self.members) - len(self.away)

    @property
    def was_writable(self) -> bool:
        """Has it ever taken writes, durably?"""
        return self.record is not None and bool(self.record.writable_uuids)


def from_record(number: int, record: GroupRecord) -> Group:
    """A group as it was stored."""
    return Group(
        number, record.replicas, list(record.members), dict(record.learners), record.draining, record
    )
