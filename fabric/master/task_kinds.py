"""What each kind of task does: its plan, its beginning, how far it is, its end.

A kind decides and keeps nothing: what a task needs to remember is in its ``TaskRecord``, so that a task goes
on after a restart of the master where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from fabric.errors import BadRequest, Refused
from fabric.master import references
from fabric.master.audit import Audits
from fabric.master.deletion import Deletion
from fabric.master.delta import DeltaStore
from fabric.master.groups import Group, Groups
from fabric.master.journal import After
from fabric.master.membership import Membership, Node
from fabric.master.moves import Moves
from fabric.master.records import Shift, TaskRecord
from fabric.master.store import Reader
from fabric.settings import MIB
from fabric.wire.messages import StartTask

AUDITS_PER_TASK = 1_000
"""Audit numbers of task n: from n times this on."""
AUDIT_AGAIN_S = 10.0
"""Between two audits that a task asks for."""
SETTLE_S = 5.0
"""Proxies with an older view may go on storing in a group for so long after it was closed."""
SHIFT_BYTES_MIN = 16 * MIB
"""Groups whose fill differs by less are left alone."""
NO_PROXY_S = 5.0
KEPT_SCAN = 5_000
"""References looked at to see whether anything is left to move; so many are taken for a yes."""


class Progress(msgspec.Struct, frozen=True):
    """How far a task is.  ``end``: ``done``, ``failed``, or empty while it goes on."""

    total: int
    done: int
    reason: str
    end: str = ""


class Cluster(msgspec.Struct, frozen=True):
    """What kinds look at and act on."""

    store: Reader
    membership: Membership
    groups: Groups
    deletion: Deletion
    moves: Moves
    audits: Audits

    def group(self, number: int) -> Group:
        """Raises Refused when there is none."""
        group = self.groups.groups.get(number)
        if group is None:
            known = ", ".join(map(str, sorted(self.groups.groups))) or "none"
            raise Refused(f"there is no group {number}; known groups: {known}")
        return group

    def live_bytes(self, group: Group) -> int:
        """What its fullest member holds."""
        return max((n.beat.live_bytes for n in self.groups.nodes_of(group) if n.beat), default=0)

    def free_bytes(self, group: Group) -> int:
        """What its fullest member has room for."""
        return min((n.beat.free_bytes if n.beat else 0 for n in self.groups.nodes_of(group)), default=0)

    def takers(self, besides: int) -> list[Group]:
        """Groups that take new fragments now."""
        return [g for g in self.groups.groups.values() if g.group != besides and self.groups.is_writable(g)]


class Kind(Protocol):
    """One kind of task."""

    unit: str

    def plan(self, cluster: Cluster, request: StartTask) -> list[str]:
        """What will be done, for people.  Raises Refused or BadRequest when it cannot be."""
        ...

    def begin(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """Do what begins it, and fill in the record; call what is returned when the delta is durable."""
        ...

    def progress(self, cluster: Cluster, record: TaskRecord, now: float, began_at: float) -> Progress:
        """How far it is.  May change the record."""
        ...

    def cancel(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """Do no more."""
        ...


def gib_text(size: int) -> str:
    """For plans and reasons."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


class DrainGroup:
    """No new fragments for a group; all that objects name in it moves to others, until it is empty."""

    unit = "bytes"

    def plan(self, cluster: Cluster, request: StartTask) -> list[str]:
        """Refused when no other group takes writes, or they have no room for it."""
        group = cluster.group(request.group)
        takers = cluster.takers(besides=group.group)
        needed, free = cluster.live_bytes(group), sum(map(cluster.free_bytes, takers))
        if not takers:
            raise Refused(
                f"no other group takes writes, so nothing can leave group {group.group}; add one with"
                " `fabric admin group add`"
            )
        if needed > free:
            raise Refused(
                f"group {group.group} holds {gib_text(needed)}, the other groups have room for"
                f" {gib_text(free)}; add a group with `fabric admin group add`"
            )
        names = ", ".join(str(taker.group) for taker in takers)
        return [
            f"group {group.group} takes no new fragments",
            f"{gib_text(needed)} move from group {group.group} to group {names} (room for {gib_text(free)})",
            "readers and writers go on meanwhile",
        ]

    def begin(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """Close the group."""
        record.total = cluster.live_bytes(cluster.group(record.group))
        return cluster.groups.set_draining(delta, record.group, True)

    def progress(self, cluster: Cluster, record: TaskRecord, now: float, began_at: float) -> Progress:
        """First the moving, then what readers may still need, then what nobody ever committed."""
        group = cluster.group(record.group)
        record.total = max(record.total, record.done)
        members = cluster.groups.nodes_of(group)
        fragments = max((node.beat.fragments for node in members if node.beat), default=0)
        if references.is_any_kept(cluster.store, group.group, KEPT_SCAN):
            if not cluster.takers(besides=group.group):
                return Progress(record.total, record.done, "waiting: no other group takes writes")
            if now - max(cluster.moves.asked_at, began_at) > NO_PROXY_S:
                return Progress(record.total, record.done, "waiting: no proxy asks for fragments to move")
            return Progress(record.total, record.done, "moving")
        if references.is_any(cluster.store, group.group):
            return Progress(record.total, record.total, "moved; readers may finish with the old fragments")
        away = [node.server for node in members if not node.alive]
        if away:
            return Progress(record.total, record.total, f"waiting for {', '.join(away)} to come back")
        if fragments == 0 and now - began_at > SETTLE_S:
            return Progress(record.total, record.total, "empty", "done")
        if any(cluster.deletion.count(node.server) for node in members):
            return Progress(record.total, record.total, f"moved; {fragments} old fragments are being deleted")
        ask_for_audit(record, now, began_at)
        text = f"moved; {fragments} fragments were never committed: waiting until their leases end"
        return Progress(record.total, record.total, text)

    def cancel(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """Open the group again."""
        return cluster.groups.set_draining(delta, record.group, False)


class Rebalance:
    """Bytes move from groups that are fuller than the average to emptier ones, once."""

    unit = "bytes"

    def plan(self, cluster: Cluster, request: StartTask) -> list[str]:
        """One line for each shift."""
        shifts = plan_shifts(cluster)
        if not shifts:
            return ["the groups are about equally full: nothing to move"]
        return [f"{gib_text(s.left_bytes)} move from group {s.source} to group {s.target}" for s in shifts]

    def begin(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """Fix what is to move."""
        record.shifts = plan_shifts(cluster)
        record.total = sum(shift.left_bytes for shift in record.shifts)
        return None

    def progress(self, cluster: Cluster, record: TaskRecord, now: float, began_at: float) -> Progress:
        """Until every shift has moved its bytes, or has nothing left to move."""
        for shift in record.shifts:
            if not references.is_any(cluster.store, shift.source):
                shift.left_bytes = 0
        # A shift cannot be met to the byte: what is left is less than one fragment may be.
        if all(shift.left_bytes <= 0 for shift in record.shifts):
            return Progress(record.total, record.total, "balanced", "done")
        closed = [
            str(shift.target)
            for shift in record.shifts
            if shift.left_bytes > 0 and not cluster.groups.is_writable(cluster.group(shift.target))
        ]
        if closed:
            return Progress(record.total, record.done, f"waiting: group {', '.join(closed)} takes no writes")
        if now - max(cluster.moves.asked_at, began_at) > NO_PROXY_S:
            return Progress(record.total, record.done, "waiting: no proxy asks for fragments to move")
        return Progress(record.total, record.done, "moving")

    def cancel(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """What is handed out may still be moved."""
        record.shifts = []
        return None


class Join:
    """A server becomes a member of a group: beside those it has, or in the place of one."""

    unit = "bytes"

    def plan(self, cluster: Cluster, request: StartTask) -> list[str]:
        """Refused as ``Groups.check_join`` says."""
        server, group, replaces = self._resolve(cluster, request.kind, request)
        return cluster.groups.check_join(server, group, replaces)

    def begin(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """Let the server copy what the members hold."""
        server, group, replaces = self._resolve(cluster, record.kind, record)
        record.group, record.joining = group, server
        if record.kind == "drain-node":
            record.replacement = server
        return cluster.groups.join(delta, server, group, replaces)

    def progress(self, cluster: Cluster, record: TaskRecord, now: float, began_at: float) -> Progress:
        """Until the group is writable with the server in it."""
        joined = cluster.groups.joined(record.joining, record.group)
        done, total = cluster.groups.progress(record.joining)
        if joined is None:
            return Progress(total, done, f"{record.joining} does not join it any more", "failed")
        if joined:
            return Progress(total, total, f"{record.joining} is a member of group {record.group}", "done")
        node = cluster.membership.nodes.get(record.joining)
        if node is None or not node.alive:
            return Progress(total, done, f"waiting for {record.joining} to start")
        return Progress(total, min(done, total), f"{record.joining} copies what group {record.group} holds")

    def cancel(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """It does not join, if it has not joined yet."""
        return cluster.groups.cancel_join(delta, record.joining)

    @staticmethod
    def _resolve(cluster: Cluster, kind: str, what: StartTask | TaskRecord) -> tuple[str, int, str]:
        """Who joins, which group, in whose place."""
        if kind == "add-node":
            cluster.group(what.group)
            return what.server, what.group, ""
        node = cluster.membership.nodes.get(what.server)
        if node is None or not node.group:
            raise Refused(f"{what.server!r} is not a member of any group; see `fabric admin nodes`")
        if kind == "replace-node":
            return what.replacement, node.group, what.server
        spare = cluster.groups.spare(node.group)
        if spare is None:
            raise Refused(
                f"no server is free to take the place of {what.server}: start one more with `fabric chunk`,"
                f" or move the data of its whole group away with `fabric admin group drain {node.group}`"
            )
        return spare, node.group, what.server


class Audit:
    """Every member compares what it holds with the catalog."""

    unit = "parts"

    def plan(self, cluster: Cluster, request: StartTask) -> list[str]:
        """Refused when nobody is there."""
        names = [node.server for node in audited(cluster, request.group) if node.alive]
        if not names:
            raise Refused("no member of any such group is alive")
        first = f"compare with the catalog what {', '.join(names)} hold"
        if request.kind == "gc":
            return [first, "delete fragments that nothing names and no push can name any more"]
        return [first, "fetch what a member lacks from the others"]

    def begin(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """Ask for the first audit."""
        record.audit = record.task * AUDITS_PER_TASK
        record.count = cluster.audits.orphans_freed
        return None

    def progress(self, cluster: Cluster, record: TaskRecord, now: float, began_at: float) -> Progress:
        """Until each member that is alive has finished; a repair looks a second time when anything lacked."""
        nodes = audited(cluster, record.group)
        shares = [progress_of(node, record.audit) for node in nodes if node.alive]
        total, done = 100 * len(nodes), int(100 * sum(shares))
        away = [node.server for node in nodes if not node.alive]
        if away:
            return Progress(total, done, f"waiting for {', '.join(away)} to come back")
        if not nodes or min(shares) < 1.0:
            return Progress(total, min(done, total - 1), "comparing with the catalog")
        if record.kind == "gc":
            freed = max(0, cluster.audits.orphans_freed - record.count)
            return Progress(total, total, f"{freed} fragments that nothing named", "done")
        missing = sum(cluster.audits.missing[node.server] for node in nodes)
        damaged = sum(node.beat.quarantined for node in nodes if node.beat)
        if not missing and not damaged:
            return Progress(total, total, "every member holds what the catalog names", "done")
        text = f"{missing} fragments lacking, {damaged} damaged"
        if record.audit >= record.task * AUDITS_PER_TASK + 3:
            return Progress(total, total, f"{text}: no member has a good copy of them", "failed")
        ask_for_audit(record, now, began_at)
        return Progress(total, total - 1, f"{text}; fetched from other members, looking again")

    def cancel(self, cluster: Cluster, delta: DeltaStore, record: TaskRecord) -> After | None:
        """Servers finish the pass that is under way."""
        return None


KINDS: dict[str, Kind] = {
    "drain-group": DrainGroup(),
    "rebalance": Rebalance(),
    "add-node": Join(),
    "replace-node": Join(),
    "drain-node": Join(),
    "repair": Audit(),
    "gc": Audit(),
}


def ask_for_audit(record: TaskRecord, now: float, began_at: float) -> None:
    """The next audit of this task, a while after the last one."""
    since = int((now - began_at) / AUDIT_AGAIN_S)
    record.audit = max(record.audit, record.task * AUDITS_PER_TASK + min(since + 1, AUDITS_PER_TASK - 1))


def audited(cluster: Cluster, group: int) -> list[Node]:
    """Members of a group, or of all."""
    groups = [cluster.group(group)] if group else cluster.groups.groups.values()
    # One that never took writes holds nothing, and its members wait for others.
    return [node for each in groups if each.was_writable for node in cluster.groups.nodes_of(each)]


def progress_of(node: Node, audit: int) -> float:
    """How far a server is with an audit."""
    beat = node.beat
    return beat.audit_progress if beat is not None and beat.audit == audit else 0.0


def plan_shifts(cluster: Cluster) -> list[Shift]:
    """From the fullest group to the emptiest, until all are about equally full."""
    open_groups = cluster.takers(besides=0)
    held = {group.group: cluster.live_bytes(group) for group in open_groups}
    room = {group.group: cluster.free_bytes(group) + held[group.group] for group in open_groups}
    if not sum(room.values()):
        return []
    share = sum(held.values()) / sum(room.values())
    over = {group: int(held[group] - share * room[group]) for group in held}
    shifts: list[Shift] = []
    while over:
        source, target = max(over, key=lambda g: over[g]), min(over, key=lambda g: over[g])
        size = min(over[source], -over[target])
        if size < SHIFT_BYTES_MIN:
            break
        shifts.append(Shift(source, target, size))
        over[source] -= size
        over[target] += size
    return shifts


def check_request(request: StartTask) -> None:
    """Raises BadRequest for a field that its kind needs and that is empty."""
    needs: dict[str, Callable[[StartTask], bool]] = {
        "drain-group": lambda r: bool(r.group),
        "accept-loss": lambda r: bool(r.group),
        "add-node": lambda r: bool(r.server and r.group),
        "replace-node": lambda r: bool(r.server and r.replacement),
        "drain-node": lambda r: bool(r.server),
    }
    if request.kind in needs and not needs[request.kind](request):
        raise BadRequest(f"{request.kind} lacks the name of a server or the number of a group")
