"""Groups: the replica sets, as operators order them and as clients are to use them.

What a group is just now is in ``standings``, what keeps its members of one mind in ``epochs``, how they
follow one another in ``succession``, and how servers come and go in ``joins``.
"""

from __future__ import annotations

from collections.abc import Callable

from fabric.errors import BadRequest, Refused
from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.group import FORMING, RO, RW, SEALED, SYNC, SYNCING, WAIT, WRITABLE, Condition, Group
from fabric.master.joins import REPLICAS_MAX, Joins
from fabric.master.journal import After
from fabric.master.records import GroupRecord, encode
from fabric.node.effects import Effect

__all__ = [
    "FORMING",
    "RO",
    "RW",
    "SEALED",
    "SYNC",
    "SYNCING",
    "WAIT",
    "WRITABLE",
    "Condition",
    "Group",
    "Groups",
]


class Groups(Joins):
    """All of it, with the orders about whole groups."""

    # --- placement --------------------------------------------------------------------------------

    def is_writable(self, group: Group) -> bool:
        """Shall clients put new fragments into it now?"""
        if not self.is_open(group) or group.draining:
            return False
        return not self._avoidance.reason(group.group) or not self._is_other_free(group)

    def _is_other_free(self, group: Group) -> bool:
        return any(
            other is not group
            and self.is_open(other)
            and not other.draining
            and not self._avoidance.reason(other.group)
            for other in self.groups.values()
        )

    def on_report(self, server: str, code: str, now: float) -> None:
        """A proxy could not write to this server."""
        node = self._membership.nodes.get(server)
        group = self.groups.get(node.group) if node is not None else None
        if group is None or server not in group.members:
            return
        if self._avoidance.on_report(server, group.group, code, now):
            self._dirty[group.group] = None
            self.on_event("group", f"group {group.group}", self._avoidance.reason(group.group))

    def on_tick(self, now: float) -> None:
        """Try groups again that were avoided for long enough."""
        for group in self._avoidance.on_tick(now):
            self._dirty[group] = None
            self.on_event("group", f"group {group}", "is not avoided any longer")

    def next_deadline(self) -> float | None:
        """When ``on_tick`` next has something to do."""
        return self._avoidance.next_deadline()

    # --- groups -----------------------------------------------------------------------------------

    def plan_group(self, group: int, replicas: int) -> tuple[Group, bool]:
        """The group that an operator wants, and whether it is new.  Changes nothing.

        ``group`` 0: the first without members or else the next number; ``replicas`` 0: the default.
        Raises BadRequest for an impossible number of replicas, Refused when the group is there with another.
        """
        if replicas > REPLICAS_MAX:
            raise BadRequest(f"{replicas} replicas: at most {REPLICAS_MAX} are possible")
        if group:
            found = self.groups.get(group)
        else:
            empty = (g for g in self.groups.values() if not g.members and g.record is not None)
            found = min(empty, key=lambda found: found.group, default=None)
        if found is None:
            return Group(group or max(self.groups, default=0) + 1, replicas or self._replicas, []), True
        if replicas not in (0, found.replicas):
            raise Refused(
                f"group {found.group} is there already, with {found.replicas} replicas; take another number"
            )
        return found, False

    def store_group(self, delta: DeltaStore, group: Group) -> Callable[[], None]:
        """A new group, without members.  Call what is returned once the delta is durable."""
        self.groups[group.group] = group
        record = GroupRecord(0, group.replicas, [], {})
        delta.put(keys.group_key(group.group), encode(record))

        def on_durable() -> None:
            # A server may have been placed there meanwhile, whose epoch is durable with it.
            group.record = group.record or record
            self._dirty[group.group] = None
            self.on_event("group", f"group {group.group}", f"added, for {group.replicas} replicas")

        return on_durable

    def set_draining(self, delta: DeltaStore, group: int, draining: bool) -> After:
        """Let a group take no new fragments, or again take some.  Its members stay as they are.

        Raises Refused for an unknown group.
        """
        found = self._find(group)
        changed = found.draining != draining
        found.draining = draining
        done = self._rewrite(delta, found, draining=draining) if changed else None

        def on_durable(now: float) -> list[Effect]:
            if done is not None:
                done()
                word = "takes no new fragments" if draining else "may take new fragments again"
                self.on_event("group", f"group {group}", word)
            return []

        return on_durable

    def accept_loss(self, delta: DeltaStore, group: int) -> After:
        """Let a group whose data directories are all gone become writable, empty.

        Raises Refused while one of them may be there.
        """
        found = self._find(group)
        if not self._all_replaced(found):
            state, reason = self.state(found)
            raise Refused(f"group {group} has not lost all of its data directories: {reason or state}")
        done = self._rewrite(delta, found, writable_uuids={})

        def on_durable(now: float) -> list[Effect]:
            done()
            self.on_event("group", f"group {group}", "its data are given up: it begins anew, empty")
            return self._assign(self.nodes_of(found))

        return on_durable
