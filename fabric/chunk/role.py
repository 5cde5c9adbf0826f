"""The chunk server: keeps fragments, confirms them when they are durable, and agrees with its group.

Everything that blocks runs on two lanes of the engine (``write``: one thread, ``read``: several); their
results come back as events.  The token of each job is its continuation.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

from fabric.chunk.audit import Audit
from fabric.chunk.catch_up import CatchUp
from fabric.chunk.deletions import Deletions
from fabric.chunk.details import chunk_details
from fabric.chunk.jobs import (
    CompactDone,
    CompareDone,
    DeleteItem,
    DigestJob,
    DigestsDone,
    DiskChecked,
    ListDone,
    ListJob,
    Outcome,
    ReadDone,
    ReadItem,
    ReadResult,
    ScrubDone,
    Status,
    StatusDone,
    StatusJob,
    WriteDone,
)
from fabric.chunk.master_link import MasterLink
from fabric.chunk.pull import Puller
from fabric.chunk.read_queue import LANE as READ_LANE
from fabric.chunk.read_queue import ReadQueue
from fabric.chunk.read_queue import Ticket as ReadTicket
from fabric.chunk.repairs import Repairs
from fabric.chunk.standing import SYNC, Standing
from fabric.chunk.store_requests import LARGE_BYTES, StoreRequests
from fabric.chunk.upkeep import Upkeep
from fabric.chunk.write_queue import Ticket, WriteQueue
from fabric.errors import BadRequest, Busy, FabricError, NoFragment, Unavailable
from fabric.node.calls import Calls
from fabric.node.effects import WORKER, Effect, Exit, Payload, Reply, Run, Sender
from fabric.settings import Settings
from fabric.wire.codec import failed
from fabric.wire.messages import (
    AbortFragment,
    Assignment,
    BucketEntries,
    BucketEntry,
    Buckets,
    FragmentAborted,
    FragmentData,
    Heartbeat,
    ListBucket,
    ListBuckets,
    MaintainChunk,
    Message,
    Ping,
    Pong,
    ReadFragment,
    Request,
    StoreFragment,
    StoreFragments,
)

LISTINGS_MAX = 64
"""Listings for peers that may be under way; beyond that the answer is BUSY."""
PAGE_ENTRIES = 4096

log = logging.getLogger("fabric")


class ChunkRole:
    """One chunk server."""

    def __init__(
        self,
        *,
        server: str,
        uuid: str,
        incarnation: int,
        endpoint: str,
        group: int,
        master: str,
        settings: Settings,
        rng: random.Random,
        version: str,
        host: str = "",
        directory: str = "",
    ) -> None:
        """``endpoint``: where others reach this server.  ``group``: the one it is for, 0 for any.

        ``host``: an id of this machine, whose processes are told places in ``directory``, an absolute path;
        empty: nobody is.
        """
        self._host = host
        self._directory = directory
        self._server = server
        self._uuid = uuid
        self._incarnation = incarnation
        self._endpoint = endpoint
        self._wished_group = group
        self._master_sender = Sender(master, 0)
        self._settings = settings
        self._rng = rng
        self._version = version
        self._calls = Calls(rng)
        self._writes = WriteQueue()
        self._reads = ReadQueue(settings.read_threads)
        self._listings = 0
        self._standing = Standing(server, settings.one_warm_copy)
        self._puller = Puller(self._calls, self._writes, self._standing)
        self._repairs = Repairs(self._puller, self._standing, rng)
        self._upkeep = Upkeep(settings)
        self._deletions = Deletions()
        self._audit = Audit(
            server,
            master,
            settings,
            self._calls,
            self._standing,
            spread=(incarnation % 1024 + 1) / 1024,
            missing=self._on_missing,
        )
        self._told_audit = 1.0
        self._catch_up: CatchUp | None = None
        self._wants_catch_up = False
        self._status: Status | None = None
        self._told_synced = b""
        self._link = MasterLink(
            master=master,
            settings=settings,
            calls=self._calls,
            standing=self._standing,
            heartbeat=self._heartbeat,
            adopted=self._on_adopted,
        )
        stores = StoreRequests(server, self._standing, self._writes, settings)
        self._requests: dict[type, Callable[..., list[Effect]]] = {
            StoreFragment: stores.one,
            StoreFragments: stores.several,
            ReadFragment: self._on_read,
            AbortFragment: self._on_abort,
            ListBuckets: self._on_list_buckets,
            ListBucket: self._on_list_bucket,
            MaintainChunk: self._on_maintain,
            Ping: lambda m, sender, now: [Reply(sender, Pong("chunk", server, version))],
        }

    # --- the role ---------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Ask the engine how it is; the first heartbeat follows its answer."""
        return [Run(READ_LANE, StatusJob())]

    def receive(
        self, message: object, sender: Sender, now: float, payload: Payload | None = None
    ) -> list[Effect]:
        """Handle a message or an event of the engine."""
        if sender == WORKER:
            effects = self._on_event(message, now)
        elif isinstance(message, Request):
            effects = self._on_request(message, sender, now, payload)
        elif isinstance(message, Assignment) and sender == self._master_sender:
            effects = self._link.on_unasked(message, now)
        elif isinstance(message, Message):
            effects = self._calls.on_reply(message, sender, now, payload)
        else:
            raise TypeError(f"{type(message).__name__} is no message")
        return effects + self._go_on(now)

    def on_tick(self, now: float) -> list[Effect]:
        """Calls that ran out, the heartbeat, the next round of catching up."""
        effects = self._calls.on_tick(now) + self._repairs.on_tick(now) + self._upkeep.on_tick(now)
        effects += self._audit.on_tick(now)
        if self._catch_up is not None:
            effects += self._catch_up.on_tick(now)
        beat = self._link.on_tick(now)
        if beat:
            # Refresh what the next heartbeat will say.
            effects += [*beat, Run(READ_LANE, StatusJob())]
        return effects + self._go_on(now)

    def on_turn_end(self, now: float) -> list[Effect]:
        """Begin to write and to read what has come."""
        return self._writes.take(now) + self._reads.take(now)

    def next_deadline(self) -> float | None:
        """The earliest of the above."""
        deadlines = (
            self._calls.next_deadline(),
            self._link.due_at,
            self._catch_up.next_deadline() if self._catch_up is not None else None,
            self._repairs.next_deadline(),
            self._upkeep.next_deadline(),
            self._audit.next_deadline(),
        )
        return min((at for at in deadlines if at is not None), default=None)

    def _go_on(self, now: float) -> list[Effect]:
        """What any event may have made possible."""
        effects: list[Effect] = []
        if self._wants_catch_up and self._deletions.is_done and self._writes.is_idle:
            effects += self._start_catch_up(now)
        synced = self._synced()
        if synced != self._told_synced:
            self._told_synced = synced
            self._link.soon(now)
        if self._audit.progress == 1.0 and self._told_audit < 1.0:
            self._link.soon(now)
        return effects

    # --- requests ---------------------------------------------------------------------------------

    def _on_request(
        self, message: Request, sender: Sender, now: float, payload: Payload | None
    ) -> list[Effect]:
        handler = self._requests.get(type(message))
        try:
            if handler is None:
                raise BadRequest(f"a chunk server does not answer {type(message).__name__}")
            if payload is not None:
                return handler(message, sender, now, payload)
            return handler(message, sender, now)
        except FabricError as error:
            return [Reply(sender, failed(error))]

    def _on_abort(self, m: AbortFragment, sender: Sender, now: float) -> list[Effect]:
        self._check_group(m.group)
        if self._writes.pending_bytes > self._settings.chunk_inflight_bytes_max:
            raise Busy(f"{self._server} has {self._writes.pending_bytes} bytes to write")

        def on_done(outcome: Outcome, now: float) -> list[Effect]:
            if outcome.error is not None:
                return [Reply(sender, failed(outcome.error))]
            return [Reply(sender, FragmentAborted(m.fid))]

        ticket = Ticket(on_done, now + m.deadline_ms / 1000)
        self._writes.add(DeleteItem(ticket, m.fid, self._standing.group, self._standing.epoch))
        return []

    def _on_read(self, m: ReadFragment, sender: Sender, now: float) -> list[Effect]:
        if self._deletions.is_pending(m.fid):
            # A member whose tombstone is done, and forgotten, must not copy it back from here.
            raise NoFragment(f"fragment {m.fid} is being deleted")
        if self._reads.is_full:
            raise Busy(f"{self._server} has too many reads waiting")

        def on_done(result: ReadResult, now: float) -> list[Effect]:
            if result.error is None:
                file = f"{self._directory}/{result.file}" if result.file else ""
                data = FragmentData(m.fid, m.offset, result.checksum, file, result.position)
                return [Reply(sender, data, result.payload)]
            effects: list[Effect] = [Reply(sender, failed(result.error))]
            if result.damaged is not None:
                log.warning("%s; asking the other members for a good copy", result.error.message)
                effects += self._repairs.add(result.damaged, now)
            return effects

        ticket = ReadTicket(on_done, now + m.deadline_ms / 1000)
        is_near = bool(m.near) and m.near == self._host
        self._reads.add(ReadItem(ticket, m.fid, m.offset, m.length, is_near))
        return self._reads.take(now) if m.length >= LARGE_BYTES and not is_near else []

    def _on_list_buckets(self, m: ListBuckets, sender: Sender, now: float) -> list[Effect]:
        def on_done(done: DigestsDone, now: float) -> list[Effect]:
            self._listings -= 1
            return [Reply(sender, Buckets(m.group, done.digests))]

        return self._list(m.group, DigestJob(on_done))

    def _on_list_bucket(self, m: ListBucket, sender: Sender, now: float) -> list[Effect]:
        def on_done(done: ListDone, now: float) -> list[Effect]:
            self._listings -= 1
            if done.error is not None:
                return [Reply(sender, failed(done.error))]
            return [Reply(sender, BucketEntries(m.group, m.bucket, done.entries, done.more))]

        return self._list(m.group, ListJob(on_done, m.bucket, m.after, PAGE_ENTRIES))

    def _on_maintain(self, m: MaintainChunk, sender: Sender, now: float) -> list[Effect]:
        if self._status is None:
            raise Busy(f"{self._server} is starting")
        if m.action == "scrub":
            self._upkeep.scrub_now(now)
        elif m.action == "compact":
            self._upkeep.compact_now(now)
        elif m.action == "check-disk":
            self._upkeep.check_disk_now(now)
        killed, effects = self._kill_pending(now) if m.action == "kill-pending" else (0, [])
        details = chunk_details(
            self._server,
            self._version,
            self._incarnation,
            standing=self._standing,
            status=self._status,
            upkeep=self._upkeep,
            reads=self._reads,
            writes=self._writes,
            killed=killed,
            now=now,
        )
        return [*effects, Reply(sender, details)]

    def _kill_pending(self, now: float) -> tuple[int, list[Effect]]:
        """Proxies write what was refused elsewhere; deletions of the master are ordered again."""
        error = Unavailable(f"{self._server}: an operator ended the writes that waited; nothing was written")
        killed, effects = self._writes.refuse_waiting(error, now)
        log.warning("an operator ended the %d writes that waited", killed)
        return killed, effects

    def _list(self, group: int, job: DigestJob | ListJob) -> list[Effect]:
        self._check_group(group)
        if self._listings >= LISTINGS_MAX:
            raise Busy(f"{self._server} has too many listings to make")
        self._listings += 1
        return [Run(READ_LANE, job)]

    def _check_group(self, group: int) -> None:
        """Raises BadRequest for another group; before the first assignment any will do."""
        if self._standing.group and group != self._standing.group:
            raise BadRequest(f"{self._server} belongs to group {self._standing.group}, not {group}")

    # --- the engine -------------------------------------------------------------------------------

    def _on_event(self, event: object, now: float) -> list[Effect]:
        if isinstance(event, WriteDone):
            return self._writes.finish(event, now) + self._take_status(event.status, now)
        if isinstance(event, ReadDone):
            return self._reads.finish(event, now)
        if isinstance(event, DigestsDone | ListDone | CompareDone):
            finished: list[Effect] = event.token(event, now)
            return finished
        if isinstance(event, StatusDone):
            return self._take_status(event.status, now)
        if isinstance(event, ScrubDone):
            return self._on_scrubbed(event, now)
        if isinstance(event, CompactDone):
            return self._upkeep.on_compacted(event, now) + self._take_status(event.status, now)
        if isinstance(event, DiskChecked):
            return self._upkeep.on_disk_checked(event, now) + self._take_status(event.status, now)
        raise TypeError(f"{type(event).__name__} is no event of the engine")

    def _on_scrubbed(self, done: ScrubDone, now: float) -> list[Effect]:
        effects = self._upkeep.on_scrubbed(done, now)
        for entry in done.damaged:
            log.warning("fragment %d is damaged; asking the other members for a good copy", entry.fid)
            effects += self._repairs.add(entry, now)
        for fid in done.lost_tombstones:
            log.warning("the tombstone of fragment %d is damaged; writing it anew", fid)
            self._delete(fid)
        return effects + self._take_status(done.status, now)

    def _take_status(self, status: Status, now: float) -> list[Effect]:
        before, self._status = self._status, status
        if status.restart_reason:
            return [Exit(status.restart_reason)]
        if before is None:
            self._link.begin(now)
            self._upkeep.start(now)
        elif status.read_only_reason != before.read_only_reason:
            log.warning("%s", status.read_only_reason or "able to take writes again")
            self._link.soon(now)
        if self._catch_up is not None:
            self._catch_up.on_mutations(status.mutations, now)
        return []

    # --- the master -------------------------------------------------------------------------------

    def _heartbeat(self, deadline_ms: int) -> Heartbeat:
        standing, status = self._standing, self._status
        self._told_audit = self._audit.progress
        assert status is not None, "the first heartbeat follows the first status"
        return Heartbeat(
            deadline_ms=deadline_ms,
            server=self._server,
            uuid=self._uuid,
            incarnation=self._incarnation,
            endpoint=self._endpoint,
            group=self._wished_group,
            term=standing.term,
            epoch=standing.epoch,
            synced_digest=self._synced(),
            read_only_reason=status.read_only_reason,
            fragments=status.fragments,
            live_bytes=status.live_bytes,
            free_bytes=status.free_bytes,
            capacity_bytes=status.capacity_bytes,
            pending_bytes=self._writes.pending_bytes,
            deleted=self._deletions.confirmed(),
            quarantined=status.quarantined,
            garbage_bytes=status.garbage_bytes,
            audit=self._audit.number,
            audit_progress=self._told_audit,
        )

    def _synced(self) -> bytes:
        return self._catch_up.synced if self._catch_up is not None else b""

    def _on_adopted(self, assignment: Assignment, changed: bool, now: float) -> list[Effect]:
        for fid in self._deletions.order(assignment.deletes):
            self._delete(fid)
        self._audit.on_assigned(assignment.audit, now)
        if changed:
            if self._catch_up is not None:
                self._catch_up.stop()
                self._catch_up = None
            self._told_synced = b""
            self._wants_catch_up = assignment.mode == SYNC
        return []

    def _on_missing(self, entries: Sequence[BucketEntry], now: float) -> list[Effect]:
        log.warning("%d fragments of objects are missing here; asking the other members", len(entries))
        return [effect for entry in entries for effect in self._repairs.add(entry, now)]

    def _delete(self, fid: int) -> None:
        def on_done(outcome: Outcome, now: float) -> list[Effect]:
            is_done = outcome.error is None
            # One that failed is ordered again by the next heartbeat, which must not follow at once.
            if self._deletions.finish(fid, is_done) and is_done:
                self._link.soon(now)
            return []

        ticket = Ticket(on_done, expires_at=float("inf"))
        self._writes.add(DeleteItem(ticket, fid, self._standing.group, self._standing.epoch))

    def _start_catch_up(self, now: float) -> list[Effect]:
        """Compare with the members: what was ordered before is done, and no write is under way."""
        self._wants_catch_up = False
        standing = self._standing
        self._catch_up = CatchUp(
            standing.group,
            standing.peers,
            self._calls,
            self._puller,
            self._rng,
            self._settings.catch_up_bytes_per_s,
        )
        return self._catch_up.on_tick(now)
