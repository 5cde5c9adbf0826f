"""What groups and servers are just now, by what is durable and what was heard; nothing is changed here.

    FORMING    fewer members registered than the group is to have
    SEALED     a member is missing or read-only, or all data directories are new
    SYNCING    all members are here and compare what they hold
    WRITABLE   all members are RW

A member is told RW, SYNC, RO or WAIT.  WAIT takes writes away and never gives any: it is for what is being
decided.  To be told RW a member must belong to the condition that the writable epoch rests on.  A learner is
no member: it copies in every epoch and counts for none.

If every member that was part of the last writable epoch comes back with another data directory, then
the data are gone, not merely behind.  An empty group would make that look healthy, so it stays SEALED
until one of the old directories returns.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabric.master import keys
from fabric.master.avoidance import Avoidance
from fabric.master.deletion import DELETES_PER_ASSIGNMENT, Deletion
from fabric.master.group import (
    FORMING,
    RO,
    RW,
    SEALED,
    SYNC,
    SYNCING,
    WAIT,
    WRITABLE,
    Condition,
    Group,
    from_record,
)
from fabric.master.membership import Membership, Node
from fabric.master.records import decode_group
from fabric.master.store import Reader
from fabric.wire.messages import Assignment, Member

_SCAN = 1_000


class Standings:
    """All groups, as they are."""

    def __init__(self, membership: Membership, deletion: Deletion, lease_ms: int) -> None:
        self._membership = membership
        self._deletion = deletion
        self._lease_ms = lease_ms
        self._term = 0
        self.groups: dict[int, Group] = {}
        self._avoidance = Avoidance()

    def load(self, store: Reader, term: int) -> None:
        """Take up the stored groups, sealed: in a new term nobody has reported yet."""
        self._term = term
        start, stop = keys.GROUPS, keys.after_all(keys.GROUPS)
        while pairs := store.scan(start, stop, _SCAN):
            for key, value in pairs:
                number = keys.last_number(key)
                self.groups[number] = from_record(number, decode_group(value))
            start = pairs[-1][0] + b"\0"

    # --- what others ask --------------------------------------------------------------------------

    def is_group(self, group: int) -> bool:
        """Is this a group that exists durably?"""
        found = self.groups.get(group)
        return found is not None and found.record is not None

    def members_of(self, group: int) -> Sequence[str]:
        """Names of those that are to hold a group's fragments: members and learners."""
        found = self.groups.get(group)
        return [*found.members, *found.learners] if found is not None else ()

    def nodes_of(self, group: Group) -> list[Node]:
        """The members' nodes."""
        return [self._membership.nodes[name] for name in group.members]

    def is_open(self, group: Group) -> bool:
        """Do all members take writes of the present epoch?"""
        return group.writable and group.condition == self.observe(group)

    def state(self, group: Group) -> tuple[str, str]:
        """FORMING, SEALED, SYNCING or WRITABLE, and why."""
        if self.is_open(group):
            return WRITABLE, self._caveats(group)
        if group.missing > 0:
            return FORMING, f"{len(group.members)} of {group.replicas} members have registered"
        nodes = self.nodes_of(group)
        missing = [node.server for node in nodes if not node.alive]
        if missing:
            return SEALED, f"not alive: {', '.join(missing)}"
        if self._all_replaced(group):
            return SEALED, (
                "every member has a new data directory; the directories that held this group's data are"
                " gone. Bring one of them back, or the data are lost"
            )
        read_only = [f"{node.server} ({node.read_only_reason})" for node in nodes if node.read_only_reason]
        if read_only:
            return SEALED, f"read-only: {', '.join(read_only)}"
        return SYNCING, "members are comparing their fragments"

    def _caveats(self, group: Group) -> str:
        """What an operator should know of a writable group."""
        caveats = []
        if group.away:
            verb = "is" if len(group.away) == 1 else "are"
            caveats.append(f"degraded: {', '.join(group.away)} {verb} away")
        if group.draining:
            caveats.append("draining: it takes no new fragments")
        if avoided := self._avoidance.reason(group.group):
            caveats.append(avoided)
        return "; ".join(caveats)

    @staticmethod
    def _is_registered(node: Node) -> bool:
        return node.stored == node.record() and not node.replaced

    def _learners(self, group: Group) -> list[Node]:
        return [self._membership.nodes[name] for name in group.learners]

    # --- decisions --------------------------------------------------------------------------------

    def observe(self, group: Group) -> Condition:
        """The condition as it is now."""
        return tuple(
            (node.server, node.session if node.alive else 0, bool(node.read_only_reason))
            for node in self.nodes_of(group)
        )

    def assignment(self, node: Node) -> Assignment:
        """What this node is to be, by the durable epoch."""
        group = self.groups.get(node.group)
        record = group.record if group is not None else None
        if group is None or record is None or node.server not in (*record.members, *record.learners):
            return self._outside(node)
        nodes = self._membership.nodes
        return Assignment(
            self._term,
            group.group,
            record.epoch,
            self.mode(node, group),
            [Member(name, nodes[name].endpoint) for name in record.members if nodes[name].endpoint],
            self._deletion.fids_for(node.server),
            self._lease_ms,
        )

    def _outside(self, node: Node) -> Assignment:
        """For a server without a group.  One that was retired obeys no epoch below its last one."""
        left = self.groups.get(node.retired_from) if node.is_retired else None
        epoch = left.record.epoch if left is not None and left.record is not None else 0
        return Assignment(self._term, 0, epoch, WAIT, [], [], self._lease_ms)

    def mode(self, node: Node, group: Group) -> str:
        """RW only in a writable epoch whose condition still holds."""
        if node.server in group.learners:
            return self._mode_of_learner(node, group)
        if group.condition != self.observe(group):
            return WAIT
        if group.writable:
            return RW
        if node.read_only_reason:
            return RO
        state, _ = self.state(group)
        if state == FORMING or self._all_replaced(group):
            return WAIT
        nodes = self.nodes_of(group)
        if not all(node.alive for node in nodes):
            return WAIT
        # A member must not copy from another what that one has yet to delete, so all deletes must fit
        # into one assignment, which a member obeys before it compares.
        if any(self._deletion.count(node.server) > DELETES_PER_ASSIGNMENT for node in nodes):
            return WAIT
        return SYNC

    def _mode_of_learner(self, node: Node, group: Group) -> str:
        """It copies whatever the members' modes are.  What they have yet to delete, it has to delete too."""
        if node.read_only_reason:
            return RO
        is_told = group.record is not None and group.record.epoch > 0 and self._is_registered(node)
        few_deletes = self._deletion.count(node.server) <= DELETES_PER_ASSIGNMENT
        return SYNC if is_told and few_deletes else WAIT

    def _all_equal(self, group: Group) -> bool:
        """Have all members reported one digest in the present epoch, with nothing against writing?"""
        assert group.record is not None, "a condition comes with a record"
        if group.missing > 0 or self._all_replaced(group):
            return False
        digests: set[bytes] = set()
        for node in self.nodes_of(group):
            beat = node.beat
            if not node.alive or beat is None or node.read_only_reason or not beat.synced_digest:
                return False
            if (beat.term, beat.epoch) != (self._term, group.record.epoch):
                return False
            digests.add(beat.synced_digest)
        return len(digests) == 1

    def _all_replaced(self, group: Group) -> bool:
        known = group.record.writable_uuids if group.record is not None else {}
        return bool(known) and all(known.get(node.server) != node.uuid for node in self.nodes_of(group))
