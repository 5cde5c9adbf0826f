"""The master: one entrance for every message and for time, a list of effects out.

Reads are answered at once from the durable store.  Everything that changes something becomes a change
in the journal and is answered when it is durable.  Heartbeats are answered from memory, whatever the
store is doing; what they change is told once it is durable.

A life of the master begins with a durable term of its own; until then it answers nothing but pings.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import msgspec

from fabric.errors import BadRequest, Busy, DeadlineExceeded, FabricError, Refused, Unavailable
from fabric.master import keys, references
from fabric.master.audit import Audits
from fabric.master.catalog import Catalog
from fabric.master.deletion import Deletion
from fabric.master.delta import DeltaStore
from fabric.master.fids import FidLeases
from fabric.master.groups import Groups
from fabric.master.journal import After, Journal
from fabric.master.listing import list_objects
from fabric.master.membership import Membership, Node
from fabric.master.operation_ids import OperationIds
from fabric.master.operator import Operator
from fabric.master.orders import Orders
from fabric.master.store import Reader, StoreError, Written
from fabric.master.topology import TopologyPublisher
from fabric.master.upkeep import Upkeep
from fabric.master.watchers import Watchers
from fabric.node.effects import Effect, Exit, Payload, Reply, Sender
from fabric.settings import JOINED_FRAGMENTS_MAX, MIB, Settings
from fabric.wire.codec import failed
from fabric.wire.messages import (
    AppendOperation,
    AuditFragments,
    Commit,
    FidLease,
    GetStatus,
    GetTopology,
    Heartbeat,
    JoinOperation,
    LeaseFids,
    ListFragments,
    ListObjects,
    Message,
    MoveOperation,
    Noted,
    Open,
    Ping,
    Pong,
    PutOperation,
    Relocate,
    Relocated,
    ReportFailure,
    Request,
    ServerStatusSet,
    SetServerStatus,
    Stat,
    Watch,
)

QUEUE_MAX = 10_000
"""Changes that wait for the store; beyond it the answer is BUSY."""
QUEUE_BYTES_MAX = 64 * MIB
REPORT_LOG_S = 1.0
"""At most one line of a server's reported failures in this time."""

log = logging.getLogger("fabric")


class MasterRole:
    """A ``Role``.  Needs the lane "store" of one thread, which runs ``store.store_worker``."""

    def __init__(
        self,
        *,
        store: Reader,
        settings: Settings,
        rng: random.Random,
        replicas: int,
        wall_offset_s: float = 0.0,
        version: str = "",
    ) -> None:
        """``replicas`` is for groups yet to be made; ``wall_offset_s`` plus now is the time since 1970.

        ``rng`` is what every role is given; this one decides nothing by chance.
        """
        self._store = store
        self._settings = settings
        self._wall_offset_s = wall_offset_s
        self._version = version
        self._term = 0
        self._started_at = 0.0
        self._reported_at: dict[str, float] = {}
        self._journal = Journal(store)
        self._fids = FidLeases(settings.fid_lease_s)
        self._operation_ids = OperationIds()
        self._membership = Membership(settings.lease_s)
        self._deletion = Deletion(
            store, lambda group: self._groups.members_of(group), settings.delete_grace_s
        )
        self._groups = Groups(
            self._membership,
            self._deletion,
            replicas,
            int(settings.lease_s * 1000),
            settings.min_write_replicas,
        )
        self._catalog = Catalog(store, self._fids, self._operation_ids, self._groups.is_group)
        self._audits = Audits(self._deletion, self._fids)
        self._watchers = Watchers(settings.name_lease_s)
        self._publisher = TopologyPublisher(
            self._membership, self._groups, is_moving=lambda: self._orders.moves.is_any
        )
        self._operator = Operator(self._membership, self._groups, self._deletion, version)
        self._orders = Orders(
            store,
            settings,
            self._membership,
            self._groups,
            self._deletion,
            self._audits,
            self._operator,
            self._change,
            wall_offset_s,
        )
        self._groups.on_event = self._orders.note
        self._upkeep = Upkeep(self._journal, self._deletion, self._operation_ids, self._orders)
        self._handlers: dict[type[Message], Callable[..., list[Effect]]] = {
            Heartbeat: self._on_heartbeat,
            Commit: self._on_commit,
            LeaseFids: self._on_lease_fids,
            SetServerStatus: self._on_set_server_status,
            ReportFailure: self._on_report_failure,
            AuditFragments: self._on_audit,
            Relocate: self._on_relocate,
            Watch: self._on_watch,
            Stat: lambda m, sender, now: [Reply(sender, self._catalog.stat(m.path))],
            Open: lambda m, sender, now: [Reply(sender, self._catalog.open(m.path, m.offset))],
            ListFragments: lambda m, sender, now: [
                Reply(sender, self._catalog.fragments(m.object_id, m.offset))
            ],
            ListObjects: lambda m, sender, now: [Reply(sender, list_objects(store, m))],
            GetTopology: lambda m, sender, now: [Reply(sender, self._publisher.view())],
            GetStatus: self._on_get_status,
            **self._orders.handlers(),
        }

    # --- the role ---------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Take up what is stored, and begin a term."""
        self._started_at = now
        try:
            value = self._store.get(keys.TERM)
            term = 1 + (0 if value is None else keys.to_number(value))
            self._catalog.load()
            self._fids.load(self._store, now)
            self._operation_ids.load(self._store, now)
            self._membership.load(self._store, now)
            self._groups.load(self._store, term)
            self._deletion.load(now)
            self._orders.load(self._store, now)
            self._watchers.start(keys.to_prefixes(self._store.get(keys.WATCHED)), term, now)
        except StoreError as error:
            return [Exit(f"the master's store cannot be read: {error}")]

        self._journal.submit(lambda delta, now: self._begin(delta, term))
        return []

    def _begin(self, delta: DeltaStore, term: int) -> After:
        """Make the term durable, after references for what an earlier version has stored."""
        is_built = references.is_built(delta)
        if is_built:
            delta.put(keys.REFERENCES_BUILT, b"")
            delta.put(keys.TERM, keys.number(term))
        else:
            references.build(delta)

        def on_durable(now: float) -> list[Effect]:
            if not is_built:
                self._journal.submit(lambda delta, now: self._begin(delta, term))
                return []
            self._term = term
            self._publisher.start(term)
            return []

        return on_durable

    def receive(
        self, message: object, sender: Sender, now: float, payload: Payload | None = None
    ) -> list[Effect]:
        """Handle a request, or the news that a batch is durable."""
        self._orders.at(now)
        try:
            if isinstance(message, Written):
                return self._settle(self._journal.on_written(message, now), now)
            if isinstance(message, Request):
                return self._settle(self._on_request(message, sender, now), now)
        except StoreError as error:
            return [Exit(f"the master's store cannot be read: {error}")]
        return []

    def on_tick(self, now: float) -> list[Effect]:
        """Declare silent servers lost; try groups again that were avoided; go on with upkeep."""
        if not self._term:
            return []
        self._orders.at(now)
        try:
            for node in self._membership.expire(now):
                log.warning("server %s is lost: no heartbeat within its lease", node.server)
                self._groups.on_lost(node)
            self._groups.on_tick(now)
            return self._settle([*self._watchers.on_tick(now), *self._upkeep.on_tick(now)], now)
        except StoreError as error:
            return [Exit(f"the master's store cannot be read: {error}")]

    def on_turn_end(self, now: float) -> list[Effect]:
        """Begin to make durable what the messages of this turn want to change."""
        effects: list[Effect] = []
        try:
            while self._journal.is_waiting:
                effects += self._settle(self._journal.flush(now), now)
        except StoreError as error:
            return [Exit(f"the master's store cannot be read: {error}")]
        return effects

    def next_deadline(self) -> float | None:
        """The next lease to run out, group to try again, or step of upkeep."""
        if not self._term:
            return None
        waiting = self._groups, self._upkeep, self._watchers
        dues = self._membership.due_at(), *(each.next_deadline() for each in waiting)
        return min((due for due in dues if due is not None), default=None)

    def _settle(self, effects: list[Effect], now: float) -> list[Effect]:
        """Follow up on groups that something touched: new epochs, and a new view for clients."""
        if not self._term or not (self._groups.dirty or self._publisher.is_moving_news):
            return effects
        while self._groups.dirty:
            for change in self._groups.reconcile():
                self._journal.submit(change)
        return effects + self._publisher.publish_if_changed()

    def _on_request(self, message: Request, sender: Sender, now: float) -> list[Effect]:
        if isinstance(message, Ping):
            return [Reply(sender, Pong("master", "master", self._version))]
        handler = self._handlers.get(type(message))
        try:
            if handler is None:
                raise BadRequest(f"a master does not answer {type(message).__name__}")
            if not self._term:
                raise Unavailable("the master is starting")
            return handler(message, sender, now)
        except FabricError as error:
            return [Reply(sender, failed(error))]

    # --- chunk servers ----------------------------------------------------------------------------

    def _on_heartbeat(self, beat: Heartbeat, sender: Sender, now: float) -> list[Effect]:
        if beat.term > self._term:
            raise Refused(
                f"{beat.server} has served a master of term {beat.term} and this one is in term"
                f" {self._term}: its store is not the newest of this cluster"
            )
        node, changed = self._membership.on_heartbeat(beat, sender.route, now)
        if changed:
            if not node.group and not self._groups.place(node, beat.group):
                log.warning("server %s waits: %s", beat.server, self._operator.why_outside(node))
            self._groups.touch(node)
        _note_damage(node, beat.quarantined)
        effects: list[Effect] = []
        if beat.deleted:
            effects = self._confirm_deletes(beat.server, beat.deleted, now)
        assignment = self._groups.assignment(node)
        audit = self._orders.tasks.audit_for(node.group)
        if audit:
            assignment = msgspec.structs.replace(assignment, audit=audit)
        return [Reply(sender, assignment), *effects]

    def _confirm_deletes(self, server: str, fids: Sequence[int], now: float) -> list[Effect]:
        news = self._deletion.start_confirm(server, fids)
        if not news:
            return []

        def confirm(delta: DeltaStore, now: float) -> After:
            confirmed = self._deletion.confirm(delta, server, news)

            def on_durable(now: float) -> list[Effect]:
                confirmed()
                return []

            return on_durable

        self._journal.submit(confirm)
        return []

    def _on_report_failure(self, report: ReportFailure, sender: Sender, now: float) -> list[Effect]:
        if report.server in self._membership.nodes:
            self._groups.on_report(report.server, report.code, now)
            last = self._reported_at.get(report.server)
            if last is None or now - last >= REPORT_LOG_S:
                self._reported_at[report.server] = now
                log.warning(
                    "%s reports: %s failed with %s: %s",
                    report.proxy,
                    report.server,
                    report.code,
                    report.detail,
                )
        return [Reply(sender, Noted())]

    def _on_audit(self, page: AuditFragments, sender: Sender, now: float) -> list[Effect]:
        self._check_room()
        node = self._membership.nodes.get(page.server)
        if node is None or node.group != page.group:
            raise BadRequest(f"{page.server} is no member of group {page.group}")

        def judge(delta: DeltaStore, now: float) -> After:
            verdict = self._audits.judge(delta, page, now)

            def on_durable(now: float) -> list[Effect]:
                verdict.on_durable()
                return [Reply(sender, verdict.answer)]

            return on_durable

        return self._change(page, sender, now, judge)

    # --- proxies ----------------------------------------------------------------------------------

    def _on_lease_fids(self, message: LeaseFids, sender: Sender, now: float) -> list[Effect]:
        self._check_room()

        def reserve(delta: DeltaStore, now: float) -> After:
            first = self._fids.reserve(delta, message.count, now)

            def on_durable(now: float) -> list[Effect]:
                self._fids.grant(first, message.count, now)
                lease_ms = int(self._settings.fid_lease_s * 1000)
                return [Reply(sender, FidLease(first, message.count, lease_ms))]

            return on_durable

        return self._change(message, sender, now, reserve)

    def _on_commit(self, message: Commit, sender: Sender, now: float) -> list[Effect]:
        self._check_room()

        def commit(delta: DeltaStore, now: float) -> After:
            created_at_ms = int((now + self._wall_offset_s) * 1000)
            applied = self._catalog.commit(delta, message, now, created_at_ms)

            def on_durable(now: float) -> list[Effect]:
                answer: list[Effect] = [Reply(sender, applied.answer)]
                if not applied.operation_id:
                    return self._watchers.after_repetition(message.operations, answer, now)
                self._operation_ids.on_durable(applied.operation_id, now)
                self._deletion.on_doomed(applied.doomed, now)
                published = self._publisher.publish_paths(list(applied.stale_paths))
                return [*published, *self._watchers.after_change(applied.changed_paths, answer, now)]

            return on_durable

        return self._change(message, sender, now, commit, _weight_bytes(message))

    def _on_relocate(self, message: Relocate, sender: Sender, now: float) -> list[Effect]:
        self._check_room()

        def relocate(delta: DeltaStore, now: float) -> After:
            done = self._catalog.relocate(delta, message.moved, now)
            counted = self._orders.tasks.on_relocated(delta, message.moved, done.left)

            def on_durable(now: float) -> list[Effect]:
                self._deletion.on_doomed(done.doomed, now)
                counted()
                return [Reply(sender, Relocated(done.named))]

            return on_durable

        return self._change(message, sender, now, relocate)

    def _on_watch(self, message: Watch, sender: Sender, now: float) -> list[Effect]:
        if not self._watchers.new_prefixes(message):
            return self._watchers.watch(message, sender, now)
        self._check_room()

        def note(delta: DeltaStore, now: float) -> After:
            new = self._watchers.new_prefixes(message)
            watched = [*keys.to_prefixes(delta.get(keys.WATCHED)), *new]
            delta.put(keys.WATCHED, keys.prefixes(watched))

            def on_durable(now: float) -> list[Effect]:
                self._watchers.add_prefixes(watched)
                return self._watchers.watch(message, sender, now)

            return on_durable

        return self._change(message, sender, now, note)

    def _check_room(self) -> None:
        if len(self._watchers) >= QUEUE_MAX:
            raise Busy("too many changes wait for those who keep copies of the names")
        if len(self._journal) >= QUEUE_MAX or self._journal.queued_bytes >= QUEUE_BYTES_MAX:
            raise Busy("too many changes wait for the master's store")

    def _change(
        self,
        message: Request,
        sender: Sender,
        now: float,
        apply: Callable[[DeltaStore, float], After],
        weight_bytes: int = 0,
    ) -> list[Effect]:
        """Submit what a request wants; refuse it when it is too late or does not hold."""
        deadline = now + message.deadline_ms / 1000

        def change(delta: DeltaStore, now: float) -> After:
            try:
                if now > deadline:
                    raise DeadlineExceeded(f"{type(message).__name__} waited too long and was not done")
                return apply(delta, now)
            except FabricError as error:
                refusal = Reply(sender, failed(error))
                return lambda now: [refusal]

        self._journal.submit(change, weight_bytes)
        return []

    # --- the operator -----------------------------------------------------------------------------

    def _on_get_status(self, message: GetStatus, sender: Sender, now: float) -> list[Effect]:
        uptime_s = now - self._started_at
        status = self._operator.status(self._term, uptime_s, self._fids.high_water, now)
        status = msgspec.structs.replace(
            status, doomed=self._deletion.doomed_count(), orphans_freed=self._audits.orphans_freed
        )
        return [Reply(sender, status)]

    def _on_set_server_status(self, message: SetServerStatus, sender: Sender, now: float) -> list[Effect]:
        node = self._operator.find(message.server, message.status)

        def set_wanted(delta: DeltaStore, now: float) -> After:
            changed = node.wanted != message.status
            if changed:
                self._membership.set_wanted(delta, node, message.status)
                self._groups.touch(node)

            def on_durable(now: float) -> list[Effect]:
                return [Reply(sender, ServerStatusSet(self._operator.node_status(node, now), changed))]

            return on_durable

        return self._change(message, sender, now, set_wanted)


def _note_damage(node: Node, quarantined: int) -> None:
    """Tell the log when a server's copies are found damaged, and when all are well again."""
    if quarantined and not node.quarantined:
        log.warning(
            "server %s reports damaged fragments, until they are repaired: %d", node.server, quarantined
        )
    elif node.quarantined and not quarantined:
        log.info("server %s has no damaged fragments any more", node.server)
    node.quarantined = quarantined


def _weight_bytes(commit: Commit) -> int:
    """About what a waiting commit takes of memory."""
    weight, joins = 2_000 * len(commit.operations), False
    for operation in commit.operations:
        kind = type(operation)
        if kind in _WITH_ATTRIBUTES and operation.attributes:  # type: ignore[union-attr]
            attributes = operation.attributes.items()  # type: ignore[union-attr]
            weight += sum(len(key) + len(value) for key, value in attributes)
        if kind in _WITH_FRAGMENTS:
            weight += 200 * len(operation.fragments)  # type: ignore[union-attr]
        joins = joins or kind is JoinOperation
    return weight + 200 * JOINED_FRAGMENTS_MAX if joins else weight


_WITH_FRAGMENTS = (PutOperation, AppendOperation)
_WITH_ATTRIBUTES = (PutOperation, AppendOperation, MoveOperation)
