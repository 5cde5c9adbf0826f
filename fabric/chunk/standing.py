"""What the master wants this server to be, and until when that holds.

    WAIT   the group is forming, or members are missing: no writes
    SYNC   catch up with the members: no writes of clients
    RW     take writes of exactly this epoch, while the lease runs
    RO     no writes

A write needs three things at two moments, when it is taken and again when it is on the disk: mode RW, the
exact epoch, a lease that runs.  The second look is what makes a newer epoch a fence: once it is adopted, no
write of an older one is acknowledged, however late the disk is.

The lease counts from the *sending* of the heartbeat whose answer granted it, so that it never outlasts
what the master allows.  An assignment that came unasked changes the mode and not the lease.
"""

from __future__ import annotations

from fabric.errors import FabricError, NotWritable, StaleEpoch
from fabric.warmth import warm_replica
from fabric.wire.messages import Assignment, Member

WAIT, SYNC, RW, RO = "WAIT", "SYNC", "RW", "RO"


class Standing:
    """The last assignment and the lease."""

    def __init__(self, server: str, one_warm_copy: bool = True) -> None:
        self._server = server
        self._one_warm_copy = one_warm_copy
        self.term = 0
        self.epoch = 0
        self.group = 0
        self.mode = WAIT
        self.peers: list[str] = []
        """Endpoints of the other members."""
        self.lease_until = 0.0
        self._members: list[Member] = []

    def adopt(self, assignment: Assignment, heartbeat_sent_at: float | None) -> bool | None:
        """Take an assignment over; ``heartbeat_sent_at`` is None when it came unasked.

        True: something changed.  None: it is older than what is known, and ignored.
        """
        if (assignment.term, assignment.epoch) < (self.term, self.epoch):
            return None
        if heartbeat_sent_at is not None:
            self.lease_until = max(self.lease_until, heartbeat_sent_at + assignment.lease_ms / 1000)
        before = self.term, self.epoch, self.group, self.mode, self._members
        after = assignment.term, assignment.epoch, assignment.group, assignment.mode, assignment.members
        self.term, self.epoch, self.group, self.mode, self._members = after
        self.peers = [member.endpoint for member in assignment.members if member.server != self._server]
        return before != after

    def is_warm(self, fid: int, length: int) -> bool:
        """Whether this server is to keep the bytes of a fragment in memory, by ``warm_replica``."""
        if not self._one_warm_copy:
            return True
        return warm_replica(fid, length, [member.server for member in self._members]) in ("", self._server)

    def refusal(self, group: int, epoch: int, now: float) -> FabricError | None:
        """Why a client's write of this group and epoch is not taken now; None when it is."""
        if group == self.group and epoch == self.epoch and self.mode == RW:
            if now < self.lease_until:
                return None
            return NotWritable(f"{self._server} has had no word from its master for a lease")
        if group != self.group:
            return StaleEpoch(f"{self._server} belongs to group {self.group}, not {group}")
        if epoch < self.epoch:
            return StaleEpoch(f"group {group} is in epoch {self.epoch}, not {epoch}")
        return NotWritable(f"{self._server} is {self.mode} in epoch {self.epoch} of group {group}")
