"""Groups: the replica sets, and the epochs that keep their members of one mind.

A group is writable only when all of its members are known to hold the same fragments.  What a group
rests on is its *condition*: which session of each member is alive, and who may take no writes.

    condition changed        -> raise the epoch: sealed; members catch up with one another (SYNC)
    all equal in this epoch  -> raise the epoch: writable (RW)

An epoch is durable before anybody hears of it.  While the raise that a change of the condition needs
is not durable, members are told WAIT, which takes writes away and never gives them.  Chunk servers
accept writes of exactly their epoch, and a write needs all members: so from the moment that one member
has adopted a newer epoch, no write of an older one can succeed.  To be told RW a member must belong
to the condition under which all members, in one epoch, reported one digest.

    FORMING    fewer members registered than the group is to have
    SEALED     a member is missing or read-only, or all data directories are new
    SYNCING    all members are here and compare what they hold
    WRITABLE   all members are RW

If every member that was part of the last writable epoch comes back with another data directory, then
the data are gone, not merely behind.  An empty group would make that look healthy, so it stays SEALED
until one of the old directories returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from fabric.master import keys
from fabric.master.deletion import DELETES_PER_ASSIGNMENT, Deletion
from fabric.master.delta import DeltaStore
from fabric.master.journal import Change
from fabric.master.membership import Membership, Node
from fabric.master.records import GroupRecord, decode_group, encode
from fabric.master.store import Reader
from fabric.node.effects import Effect, Reply, Sender
from fabric.wire.messages import Assignment, Member

FORMING, SEALED, SYNCING, WRITABLE = "FORMING", "SEALED", "SYNCING", "WRITABLE"
WAIT, SYNC, RW, RO = "WAIT", "SYNC", "RW", "RO"

Condition: TypeAlias = tuple[tuple[str, int, bool], ...]
"""Of each member: name, session (0 when it is not alive), whether it may take no writes."""

_SCAN = 1_000


class Group(msgspec.Struct, eq=False):
    """A group in memory."""

    group: int
    replicas: int
    members: list[str]
    """Those that are to be in it; ``record`` has those that are, durably."""
    record: GroupRecord | None = None
    condition: Condition | None = None
    """What the present epoch rests on; None when this life of the master made no epoch yet."""
    writable: bool = False
    raising: bool = False
    """A new epoch is on its way to the store."""


class Groups:
    """All groups.  Decides epochs and modes; the journal makes them durable."""

    def __init__(self, membership: Membership, deletion: Deletion, replicas: int, lease_ms: int) -> None:
        self._membership = membership
        self._deletion = deletion
        self._replicas = replicas
        self._lease_ms = lease_ms
        self._term = 0
        self.groups: dict[int, Group] = {}
        self._dirty: dict[int, None] = {}

    def load(self, store: Reader, term: int) -> None:
        """Take up the stored groups, sealed: in a new term nobody has reported yet."""
        self._term = term
        start, stop = keys.GROUPS, keys.after_all(keys.GROUPS)
        while pairs := store.scan(start, stop, _SCAN):
            for key, value in pairs:
                number, record = keys.last_number(key), decode_group(value)
                self.groups[number] = Group(number, record.replicas, list(record.members), record)
            start = pairs[-1][0] + b"\0"

    # --- what others ask --------------------------------------------------------------------------

    def is_group(self, group: int) -> bool:
        """Is this a group that exists durably?"""
        found = self.groups.get(group)
        return found is not None and found.record is not None

    def members_of(self, group: int) -> Sequence[str]:
        """Names of a group's members."""
        found = self.groups.get(group)
        return found.members if found is not None else ()

    def nodes_of(self, group: Group) -> list[Node]:
        """The members' nodes."""
        return [self._membership.nodes[name] for name in group.members]

    def is_writable(self, group: Group) -> bool:
        """May clients write to it now?"""
        return group.writable and group.condition == self.observe(group)

    def state(self, group: Group) -> tuple[str, str]:
        """FORMING, SEALED, SYNCING or WRITABLE, and why."""
        if self.is_writable(group):
            return WRITABLE, ""
        if len(group.members) < group.replicas:
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

    # --- changes ----------------------------------------------------------------------------------

    def place(self, node: Node, wish: int) -> bool:
        """Find a group for a node that has none: the wished one, else the first incomplete, else a
        new one.  False when the wished group is complete."""
        if wish:
            group = self.groups.get(wish)
        else:
            incomplete = (group for group in self.groups.values() if len(group.members) < group.replicas)
            group = min(incomplete, key=lambda group: group.group, default=None)
        if group is None:
            group = Group(wish or max(self.groups, default=0) + 1, self._replicas, [])
            self.groups[group.group] = group
        elif len(group.members) >= group.replicas:
            return False
        group.members.append(node.server)
        node.group = group.group
        self.touch(node)
        return True

    def touch(self, node: Node) -> None:
        """Something about this node changed that its group may depend on."""
        if node.group in self.groups:
            self._dirty[node.group] = None

    @property
    def dirty(self) -> bool:
        """Is there anything for ``reconcile``?"""
        return bool(self._dirty)

    def reconcile(self) -> list[Change]:
        """Look at the groups that were touched; returns the epochs that must be raised."""
        dirty, self._dirty = self._dirty, {}
        changes = [self._reconcile(self.groups[number]) for number in dirty]
        return [change for change in changes if change is not None]

    def _reconcile(self, group: Group) -> Change | None:
        if group.raising:
            return None
        if group.condition is None and not any(node.alive for node in self.nodes_of(group)):
            return None  # nobody was told anything in this term
        sealed = self.observe(group) != group.condition
        if not sealed and (group.writable or not self._all_equal(group)):
            return None
        group.raising = True
        return lambda delta, now: self._raise_epoch(group, not sealed, delta)

    def _raise_epoch(
        self, group: Group, to_writable: bool, delta: DeltaStore
    ) -> Callable[[float], list[Effect]]:
        nodes, condition = self.nodes_of(group), self.observe(group)
        to_writable = to_writable and condition == group.condition
        old = group.record
        record = GroupRecord(
            epoch=(old.epoch if old is not None else 0) + 1,
            replicas=group.replicas,
            members=list(group.members),
            writable_uuids=(
                {node.server: node.uuid for node in nodes}
                if to_writable
                else (old.writable_uuids if old is not None else {})
            ),
        )
        delta.put(keys.group_key(group.group), encode(record))
        inherited = [self._register(node, group, delta) for node in nodes if node.stored != node.record()]

        def on_durable(now: float) -> list[Effect]:
            for done in inherited:
                done()
            group.record, group.condition, group.raising = record, condition, False
            group.writable = to_writable
            self._dirty[group.group] = None
            return [Reply(Sender(node.route, 0), self.assignment(node)) for node in nodes if node.alive]

        return on_durable

    def _register(self, node: Node, group: Group, delta: DeltaStore) -> Callable[[], None]:
        self._membership.save(delta, node)
        if not node.replaced:
            return lambda: None
        node.replaced = False
        peers = [name for name in group.members if name != node.server]
        return self._deletion.inherit(delta, node.server, peers)

    # --- decisions --------------------------------------------------------------------------------

    def observe(self, group: Group) -> Condition:
        """The condition as it is now."""
        nodes = self._membership.nodes
        return tuple(
            (name, node.session if node.alive else 0, bool(node.read_only_reason))
            for name in group.members
            for node in (nodes[name],)
        )

    def assignment(self, node: Node) -> Assignment:
        """What this node is to be, by the durable epoch."""
        group = self.groups.get(node.group)
        if group is None or group.record is None or node.server not in group.record.members:
            return Assignment(self._term, 0, 0, WAIT, [], [], self._lease_ms)
        nodes = self._membership.nodes
        return Assignment(
            self._term,
            group.group,
            group.record.epoch,
            self.mode(node, group),
            [Member(name, nodes[name].endpoint) for name in group.record.members],
            self._deletion.fids_for(node.server),
            self._lease_ms,
        )

    def mode(self, node: Node, group: Group) -> str:
        """RW only in a writable epoch whose condition still holds."""
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

    def _all_equal(self, group: Group) -> bool:
        """Have all members reported one digest in the present epoch, with nothing against writing?"""
        assert group.record is not None, "a condition comes with a record"
        if len(group.members) < group.replicas or self._all_replaced(group):
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
