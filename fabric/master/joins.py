"""Servers that join groups: the orders, what speaks against them, and how far they are.

A server joins beside the members of a group or in the place of one.  It may never have been seen: then it
joins when it appears.  In a group that holds nothing yet it is a member at once; else it learns first (see
``succession``).  Each order is checked when it is carried out, not only when it is given.

A server that leaves a group that has ever taken writes is *retired*: what its data directory holds is not
kept up any longer, so it must be empty before it serves again.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fabric.errors import Refused
from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.epochs import Epochs
from fabric.master.group import Group
from fabric.master.journal import After
from fabric.master.membership import Node, check_name
from fabric.master.records import encode
from fabric.node.effects import Effect
from fabric.settings import MIB

REPLICAS_MAX = 16


class Joins(Epochs):
    """``Epochs``, and the orders that let servers join and leave."""

    def check_join(self, server: str, group: int, replaces: str) -> list[str]:
        """What will happen when ``server`` joins a group: in the place of ``replaces`` or, empty, beside.

        Raises BadRequest for an impossible name, and Refused with what to do about it.
        """
        found = self._find(group)
        node = self._membership.nodes.get(server)
        if node is None:
            check_name(server)
        if replaces == server:
            raise Refused(f"{server} cannot take its own place")
        if self._is_under_way(found, server, replaces):
            return [f"{server} joins group {group} already"]
        if why := self._against_place(found, replaces) or (node and self._against_server(found, node)):
            raise Refused(why)
        return self._plan(found, server, node, replaces)

    def join(self, delta: DeltaStore, server: str, group: int, replaces: str) -> After:
        """Begin what ``check_join`` says; raises what it raises.  Repeating it changes nothing."""
        self.check_join(server, group, replaces)
        found = self._find(group)
        if self._is_under_way(found, server, replaces):
            return lambda now: []
        node = self._membership.nodes.get(server) or self._membership.expect(server)
        left = [self._take_out(node, delta)] if node.group else []
        node.group, node.placed = group, True
        self._membership.save(delta, node)
        if self._takes_place_at_once(found, delta, replaces):
            done = self._seat(found, node, replaces, delta)
        else:
            done = self._begin_learning(found, node, replaces, delta)

        def on_durable(now: float) -> list[Effect]:
            place = f" in the place of {replaces}" if replaces else ""
            self.on_event("node", server, f"joins group {group}{place}")
            return [effect for after in (*left, done) for effect in after(now)]

        return on_durable

    def cancel_join(self, delta: DeltaStore, server: str) -> After:
        """Take a server out of the group that it is joining.  Raises Refused when it is not."""
        node = self._membership.nodes.get(server)
        group = self.groups.get(node.group) if node is not None else None
        if node is None or group is None:
            raise Refused(f"{server} is not joining any group")
        if self._is_unused(group, delta):
            done = self._take_out(node, delta)
            self._save_outside(node, delta)
        elif group.learners.get(server, server) == server:
            raise Refused(f"{server} is a member of group {group.group}: put another server in its place")
        else:
            done = self._end_learning(group, node, delta)

        def on_durable(now: float) -> list[Effect]:
            self.on_event("node", server, f"joins group {group.group} no longer")
            return done(now)

        return on_durable

    def spare(self, group: int) -> str | None:
        """A server that is alive and could join this group: with the most room, best one without a group."""
        found = self._find(group)
        nodes = [
            node
            for node in self._membership.nodes.values()
            if node.alive and node.group != group and not self._against_server(found, node)
        ]
        best = max(nodes, key=lambda n: (not n.group, n.beat.free_bytes if n.beat else 0), default=None)
        return best.server if best is not None else None

    def joined(self, server: str, group: int) -> bool | None:
        """Is it a member of the writable group by now?  None: it is not even joining any more."""
        found = self.groups.get(group)
        if found is None or server not in self.members_of(group):
            return None
        is_member = found.record is not None and server in found.record.members
        return is_member and server in found.members and self.is_open(found)

    def progress(self, server: str) -> tuple[int, int]:
        """Bytes that a joining server holds, and those that the members of its group hold."""
        node = self._membership.nodes.get(server)
        group = self.groups.get(node.group) if node is not None else None
        held = node.beat.live_bytes if node is not None and node.beat is not None else 0
        return held, self._live_bytes(group) if group is not None else 0

    # --- what speaks against it -------------------------------------------------------------------

    def _plan(self, group: Group, server: str, node: Node | None, replaces: str) -> list[str]:
        plan = []
        if node is None or not node.alive:
            plan.append(f"{server} is not here: it joins when it appears")
        if not group.was_writable:
            plan.append(f"{server} becomes one of the {group.replicas} members of group {group.group}")
        else:
            size = _size(self._live_bytes(group))
            plan.append(f"{server} copies {size} from the members of group {group.group}")
            plan.append("then writes to the group pause for a moment, and it is a member")
        if replaces:
            plan.append(f"{replaces} is retired: stop it then, and wipe its data directory")
        elif group.missing <= 0:
            plan.append(f"group {group.group} has {group.replicas + 1} replicas from then on")
        return plan

    def _against_place(self, group: Group, replaces: str) -> str:
        """Why there is no such place to take; empty when there is."""
        if replaces and replaces not in group.members and replaces not in group.away:
            return (
                f"{replaces} is no member of group {group.group}: its members are {', '.join(group.members)}"
            )
        rival = next((name for name, whose in group.learners.items() if whose == replaces != name), "")
        if replaces and rival:
            return f"{rival} is taking the place of {replaces} already; cancel that first"
        if not replaces and group.draining:
            return f"group {group.group} is draining: it needs no more members"
        if not replaces and len(group.members) + len(group.learners) >= REPLICAS_MAX:
            return f"group {group.group} has {REPLICAS_MAX} replicas; no more are possible"
        return ""

    def _against_server(self, group: Group, node: Node) -> str:
        """Why this server cannot join; empty when it can."""
        name = node.server
        if node.is_retired:
            return (
                f"the data directory of {name} was retired from group {node.retired_from}: stop it, wipe the"
                " directory, and start it again"
            )
        if node.read_only_reason:
            return f"{name} is read-only: {node.read_only_reason}"
        own = self.groups.get(node.group)
        if own is not None and (own is group or name in own.learners):
            return f"{name} belongs to group {own.group} already"
        if own is not None and (own.was_writable or own.writable or own.missing <= 0):
            return f"{name} holds fragments of group {own.group}: drain it first"
        needed = self._live_bytes(group)
        if node.beat is not None and node.beat.free_bytes < needed:
            room = _size(node.beat.free_bytes)
            return f"{name} has room for {room}; group {group.group} holds {_size(needed)}"
        return ""

    def _find(self, group: int) -> Group:
        found = self.groups.get(group)
        if found is None or found.record is None:
            known = ", ".join(map(str, sorted(self.groups))) or "none"
            raise Refused(f"there is no group {group}; known groups: {known}")
        return found

    def _is_under_way(self, group: Group, server: str, replaces: str) -> bool:
        return group.learners.get(server) == replaces != server

    def _live_bytes(self, group: Group) -> int:
        return max((node.beat.live_bytes for node in self.nodes_of(group) if node.beat), default=0)

    def _is_unused(self, group: Group, delta: DeltaStore) -> bool:
        """Has it never taken writes, as of this delta?"""
        latest = self._latest(group, delta)
        return latest is None or not latest.writable_uuids

    def _takes_place_at_once(self, group: Group, delta: DeltaStore, replaces: str) -> bool:
        return self._is_unused(group, delta) and (bool(replaces) or group.missing > 0)

    def _seat(self, group: Group, node: Node, replaces: str, delta: DeltaStore) -> After:
        """A member of a group that holds nothing yet."""
        if replaces:
            group.members.remove(replaces)
            self._save_outside(self._membership.nodes[replaces], delta)
        group.members.append(node.server)
        return self._raise_epoch(group, delta)

    def _begin_learning(self, group: Group, node: Node, replaces: str, delta: DeltaStore) -> After:
        node.replaced = False
        inherited = self._deletion.inherit(delta, node.server, group.members)
        group.learners = {**group.learners, node.server: replaces}
        done = self._rewrite(delta, group, learners=dict(group.learners))

        def on_durable(now: float) -> list[Effect]:
            inherited()
            done()
            return self._assign([node])

        return on_durable

    def _end_learning(self, group: Group, node: Node, delta: DeltaStore) -> After:
        group.learners = {name: whose for name, whose in group.learners.items() if name != node.server}
        retired = self._retire(node, group, delta)
        done = self._rewrite(delta, group, learners=dict(group.learners))

        def on_durable(now: float) -> list[Effect]:
            retired()
            done()
            return self._assign([node])

        return on_durable

    def _take_out(self, node: Node, delta: DeltaStore) -> After:
        """Out of a group that holds nothing yet; where the server goes is the caller's."""
        group = self.groups[node.group]
        group.members = [name for name in group.members if name != node.server]
        group.learners = {name: whose for name, whose in group.learners.items() if name != node.server}
        node.group = 0
        return self._raise_epoch(group, delta)

    def _save_outside(self, node: Node, delta: DeltaStore) -> None:
        node.group, node.placed = 0, False
        if node.is_expected:
            self._membership.forget(delta, node)
        else:
            self._membership.save(delta, node)

    def _rewrite(
        self,
        delta: DeltaStore,
        group: Group,
        *,
        learners: dict[str, str] | None = None,
        draining: bool | None = None,
        writable_uuids: dict[str, str] | None = None,
    ) -> Callable[[], None]:
        """Change what needs no new epoch.  Call what is returned once the delta is durable."""
        latest = self._latest(group, delta)
        assert latest is not None, "only durable groups are changed"
        record = msgspec.structs.replace(
            latest,
            learners=latest.learners if learners is None else learners,
            draining=latest.draining if draining is None else draining,
            writable_uuids=latest.writable_uuids if writable_uuids is None else writable_uuids,
        )
        delta.put(keys.group_key(group.group), encode(record))

        def on_durable() -> None:
            group.record = record
            self._dirty[group.group] = None

        return on_durable


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MIB:,.1f} MiB"
