"""Epochs: what keeps the members of a group of one mind.

A group is writable only when all of its members are known to hold the same fragments.  What a group
rests on is its *condition*: which session of each member is alive, and who may take no writes.

    condition changed        -> raise the epoch: sealed; members catch up with one another (SYNC)
    members to be changed    -> the same, with the new members (see ``succession``)
    all equal in this epoch  -> raise the epoch: writable (RW)

An epoch is durable before anybody hears of it.  While the raise that a change of the condition needs
is not durable, members are told WAIT, which takes writes away and never gives them.  Chunk servers
accept writes of exactly their epoch, and a write needs all members: so from the moment that one member
has adopted a newer epoch, no write of an older one can succeed.  To be told RW a member must belong
to the condition under which all members, in one epoch, reported one digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fabric.master import keys, succession
from fabric.master.deletion import Deletion
from fabric.master.delta import DeltaStore
from fabric.master.group import Group
from fabric.master.journal import After, Change
from fabric.master.membership import Membership, Node
from fabric.master.records import GroupRecord, decode_group, encode
from fabric.master.standings import Standings
from fabric.node.effects import Effect, Reply, Sender

OnEvent = Callable[[str, str, str], None]
"""Takes kind, subject and text, as in ``EventRecord``."""


def no_event(kind: str, subject: str, text: str) -> None:
    """What happens to events that nobody wants."""


class Epochs(Standings):
    """``Standings``, and how they change.  Decides epochs; the journal makes them durable."""

    def __init__(
        self,
        membership: Membership,
        deletion: Deletion,
        replicas: int,
        lease_ms: int,
        min_write_replicas: int = 0,
    ) -> None:
        """``replicas`` is for groups yet to be made."""
        super().__init__(membership, deletion, lease_ms)
        self._replicas = replicas
        self._min_write_replicas = min_write_replicas
        self._dirty: dict[int, None] = {}
        self.on_event: OnEvent = no_event

    def place(self, node: Node, wish: int) -> bool:
        """Find a group for a node that has none: the wished one, else the first incomplete, else a
        new one.  False when the wished group is complete, and for a retired data directory."""
        if node.is_retired:
            return False
        if wish:
            group = self.groups.get(wish)
        else:
            incomplete = (g for g in self.groups.values() if g.missing > 0 and not g.draining)
            group = min(incomplete, key=lambda group: group.group, default=None)
        if group is None:
            group = Group(wish or max(self.groups, default=0) + 1, self._replicas, [])
            self.groups[group.group] = group
        elif group.missing <= 0:
            return False
        group.members.append(node.server)
        node.group = group.group
        self.touch(node)
        return True

    def touch(self, node: Node) -> None:
        """Something about this node changed that its group may depend on."""
        if node.group in self.groups:
            self._dirty[node.group] = None

    def on_lost(self, node: Node) -> None:
        """The lease of this server is over."""
        self.on_event("node", node.server, "lost: no heartbeat within its lease")
        self.touch(node)

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
        if any(node.alive and not self._is_registered(node) for node in self._learners(group)):
            group.raising = True
            return lambda delta, now: self._register_learners(group, delta)
        if group.condition is None and not any(node.alive for node in self.nodes_of(group)):
            return None  # nobody was told anything in this term
        sealed = self._must_seal(group)
        if not sealed and (group.writable or not self._all_equal(group)):
            return None
        group.raising = True
        opens = 0 if sealed or group.record is None else group.record.epoch
        return lambda delta, now: self._raise_epoch(group, delta, opens)

    def _must_seal(self, group: Group) -> bool:
        if self.observe(group) != group.condition or self._step(group) is not None:
            return True
        # A server that served another group, in a higher epoch, would not listen to this one's.
        return group.record is not None and self._highest_told(group) > group.record.epoch

    def _highest_told(self, group: Group) -> int:
        beats = [node.beat for node in (*self.nodes_of(group), *self._learners(group)) if node.alive]
        return max((beat.epoch for beat in beats if beat and beat.term == self._term), default=0)

    def _step(self, group: Group) -> succession.Step | None:
        return succession.next_step(group, self._membership.nodes, self._term, self._min_write_replicas)

    def _raise_epoch(self, group: Group, delta: DeltaStore, opens: int = 0) -> After:
        """``opens``: the epoch in which all members were equal, so that the next is a writable one."""
        step = self._step(group)
        followups = [] if step is None else [self._take_step(group, step, delta)]
        nodes, condition, old = self.nodes_of(group), self.observe(group), self._latest(group, delta)
        epoch = old.epoch if old is not None else 0
        to_writable = bool(opens) and step is None and condition == group.condition and opens == epoch
        uuids = old.writable_uuids if old is not None else {}
        record = GroupRecord(
            epoch=max(epoch, self._highest_told(group)) + 1,
            replicas=group.replicas,
            members=list(group.members),
            writable_uuids={node.server: node.uuid for node in nodes} if to_writable else uuids,
            learners=dict(group.learners),
            draining=group.draining,
        )
        delta.put(keys.group_key(group.group), encode(record))
        followups += [self._register(node, group, delta) for node in nodes if not self._is_registered(node)]

        def on_durable(now: float) -> list[Effect]:
            for done in followups:
                done()
            group.record, group.condition, group.raising = record, condition, False
            group.writable = to_writable
            if to_writable:
                self._avoidance.forget(group.group)
            self._dirty[group.group] = None
            self._tell_epoch(group, step)
            told = [*nodes, *self._learners(group)]
            if step is not None and step.retired in self._membership.nodes:
                told.append(self._membership.nodes[step.retired])
            return self._assign(told)

        return on_durable

    def _take_step(self, group: Group, step: succession.Step, delta: DeltaStore) -> Callable[[], None]:
        group.members, group.learners = list(step.members), dict(step.learners)
        group.replicas = step.replicas
        if not step.retired:
            return lambda: None
        return self._retire(self._membership.nodes[step.retired], group, delta)

    def _retire(self, node: Node, group: Group, delta: DeltaStore) -> Callable[[], None]:
        """Take a server out of its group, with the data directory that it has there."""
        node.group, node.placed, node.replaced = 0, False, False
        if node.is_expected:
            self._membership.forget(delta, node)
        else:
            known = group.record.writable_uuids.get(node.server, "") if group.record is not None else ""
            stored = node.stored.uuid if node.stored is not None else ""
            node.retired_from = group.group
            uuids = dict.fromkeys([*node.retired_uuids, node.uuid, known, stored])
            node.retired_uuids = [uuid for uuid in uuids if uuid]
            self._membership.save(delta, node)
        return self._deletion.forget(delta, node.server)

    def _tell_epoch(self, group: Group, step: succession.Step | None) -> None:
        assert group.record is not None
        subject = f"group {group.group}"
        if step is not None:
            self.on_event("group", subject, step.text)
        state, reason = self.state(group)
        self.on_event("group", subject, f"epoch {group.record.epoch}: {state}{reason and ', ' + reason}")

    def _register(self, node: Node, group: Group, delta: DeltaStore) -> Callable[[], None]:
        self._membership.save(delta, node)
        if not node.replaced:
            return lambda: None
        node.replaced = False
        peers = [name for name in group.members if name != node.server]
        return self._deletion.inherit(delta, node.server, peers)

    def _register_learners(self, group: Group, delta: DeltaStore) -> After:
        """Their epoch stays: they are not part of it."""
        nodes = [node for node in self._learners(group) if node.alive and not self._is_registered(node)]
        followups = [self._register(node, group, delta) for node in nodes]

        def on_durable(now: float) -> list[Effect]:
            for done in followups:
                done()
            group.raising = False
            self._dirty[group.group] = None
            return self._assign(nodes)

        return on_durable

    @staticmethod
    def _latest(group: Group, delta: DeltaStore) -> GroupRecord | None:
        """As it will be when all that was applied before is durable."""
        value = delta.get(keys.group_key(group.group))
        return None if value is None else decode_group(value)

    def _assign(self, nodes: Sequence[Node]) -> list[Effect]:
        return [Reply(Sender(node.route, 0), self.assignment(node)) for node in nodes if node.alive]
