"""Which chunk servers there are, and which of them are alive.

A server is alive while its lease runs; each heartbeat renews it.  Only monotonic time counts, so
clocks that jump kill nobody.  Every return to life is a new *session*: a first heartbeat, a restart
(another incarnation), a heartbeat after the lease ran out.  Groups compare sessions, so no absence is
too short to be noticed.

    unseen --heartbeat--> alive --lease over--> lost --heartbeat--> alive (next session)
       \\---lease over after the master's start--^

A name belongs to one data directory at a time.  While its server is alive, another directory under
the same name is refused; once the lease is over, another directory is a replaced disk.

An operator may name a server before it is ever seen: it has no directory yet and takes the first.  A
directory that was *retired* with its server holds fragments that others have meanwhile deleted, so it is
not let into a group again; an empty one under the same name is a new server.
"""

from __future__ import annotations

from collections import deque

import msgspec

from fabric.errors import BadRequest, Refused
from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.records import NodeRecord, decode_node, encode
from fabric.master.store import Reader
from fabric.wire.messages import Heartbeat

UNSEEN, ALIVE, LOST = "unseen", "alive", "lost"
WANTED = ("rw", "ro")
NAME_LENGTH_MAX = 128
_REMEMBERED_LIVES = 8
_SCAN = 1_000


class Node(msgspec.Struct, eq=False):
    """A chunk server that was ever heard of."""

    server: str
    uuid: str
    group: int
    """0: not in any group."""
    wanted: str
    endpoint: str
    stored: NodeRecord | None
    """As in the store; None before it is registered."""
    expires_at: float
    phase: str = UNSEEN
    session: int = 0
    route: bytes | str = b""
    beat: Heartbeat | None = None
    """The last one."""
    seen_at: float = 0.0
    replaced: bool = False
    """It came back with another data directory, and its group's epoch does not reflect that yet."""
    placed: bool = False
    """An operator chose its group."""
    retired_from: int = 0
    retired_uuids: list[str] = []
    """As in ``NodeRecord``."""
    quarantined: int = 0
    """Damaged fragments there, as the log has last been told."""
    past_lives: deque[int] = msgspec.field(default_factory=lambda: deque(maxlen=_REMEMBERED_LIVES))

    @property
    def alive(self) -> bool:
        """Does its lease run?"""
        return self.phase == ALIVE

    @property
    def read_only_reason(self) -> str:
        """Why it may take no writes, by its own or the operator's word; empty when it may."""
        if self.wanted == "ro":
            return "set read-only by the operator"
        return self.beat.read_only_reason if self.beat is not None else ""

    @property
    def is_retired(self) -> bool:
        """Is its data directory one that was taken out of a group?"""
        return self.uuid in self.retired_uuids

    @property
    def is_expected(self) -> bool:
        """Was it named by an operator, and never seen?"""
        return not self.uuid

    def record(self) -> NodeRecord:
        """What is to be stored of it."""
        return NodeRecord(
            self.uuid,
            self.group,
            self.wanted,
            self.endpoint,
            self.placed,
            self.retired_from,
            list(self.retired_uuids),
        )


class Membership:
    """All nodes.  Time comes in; what changed comes out."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self.nodes: dict[str, Node] = {}
        self._check_at: float | None = None

    def load(self, store: Reader, now: float) -> None:
        """Take up the registrations; nobody is alive until heard from."""
        start, stop = keys.NODES, keys.after_all(keys.NODES)
        while pairs := store.scan(start, stop, _SCAN):
            for key, value in pairs:
                server, record = key[len(keys.NODES) :].decode(), decode_node(value)
                self.nodes[server] = Node(
                    server,
                    record.uuid,
                    record.group,
                    record.wanted,
                    record.endpoint,
                    record,
                    expires_at=now + self._lease_s,
                    placed=record.placed,
                    retired_from=record.retired_from,
                    retired_uuids=list(record.retired_uuids),
                )
            start = pairs[-1][0] + b"\0"
        self._check_at = now + self._lease_s if self.nodes else None

    def on_heartbeat(self, beat: Heartbeat, route: bytes | str, now: float) -> tuple[Node, bool]:
        """Renew a lease; returns the node, and whether its group has to look at it again.

        Raises Refused for a name that another live server has, for a heartbeat of an earlier life, for
        a wish for another group than its own and for a retired directory; BadRequest for an impossible name.
        """
        node = self.nodes.get(beat.server)
        if node is None:
            check_name(beat.server)
            node = Node(beat.server, beat.uuid, 0, "rw", beat.endpoint, None, now)
            self.nodes[beat.server] = node
        last = node.beat
        _check_claim(node, beat, now)
        restarted = last is not None and last.incarnation != beat.incarnation
        if last is not None and restarted:
            node.past_lives.append(last.incarnation)
        joined = restarted or not node.alive or now >= node.expires_at
        if joined:
            node.replaced = node.replaced or beat.uuid != node.uuid
            node.uuid, node.endpoint = beat.uuid, beat.endpoint
            node.session += 1
            node.phase = ALIVE
        node.expires_at = now + self._lease_s
        node.route, node.beat, node.seen_at = route, beat, now
        if self._check_at is None or node.expires_at < self._check_at:
            self._check_at = node.expires_at
        return node, joined or last is None or _told(last) != _told(beat)

    def expire(self, now: float) -> list[Node]:
        """Those whose lease has run out since the last call."""
        lost = [node for node in self.nodes.values() if node.phase != LOST and node.expires_at <= now]
        for node in lost:
            node.phase = LOST
        self._check_at = min(
            (node.expires_at for node in self.nodes.values() if node.phase != LOST), default=None
        )
        return [node for node in lost if not node.is_expected]

    def expect(self, server: str) -> Node:
        """A server that an operator names before it is seen.  Raises BadRequest for an impossible name."""
        check_name(server)
        node = Node(server, "", 0, "rw", "", None, expires_at=0.0, phase=LOST)
        self.nodes[server] = node
        return node

    def forget(self, delta: DeltaStore, node: Node) -> None:
        """A server that was expected is not any more."""
        del self.nodes[node.server]
        delta.delete(keys.node_key(node.server))

    def due_at(self) -> float | None:
        """When ``expire`` may next have something to do."""
        return self._check_at

    def save(self, delta: DeltaStore, node: Node) -> None:
        """Store the registration as it is now."""
        self._store(delta, node, node.record())

    def set_wanted(self, delta: DeltaStore, node: Node, wanted: str) -> None:
        """Store what the operator wants of the node, and nothing of it that its group has not stored."""
        node.wanted = wanted
        stored = node.stored or NodeRecord(node.uuid, 0, wanted, node.endpoint)
        self._store(delta, node, msgspec.structs.replace(stored, wanted=wanted))

    @staticmethod
    def _store(delta: DeltaStore, node: Node, record: NodeRecord) -> None:
        node.stored = record
        delta.put(keys.node_key(node.server), encode(record))


def _told(beat: Heartbeat) -> tuple[object, ...]:
    """The part of a heartbeat that a group's epoch may depend on."""
    return beat.term, beat.epoch, beat.synced_digest, beat.read_only_reason


def _check_claim(node: Node, beat: Heartbeat, now: float) -> None:
    # After the master's start a node counts as alive for one lease: it may be, and unheard as yet.
    another = beat.uuid != node.uuid and not node.is_expected
    if another and node.phase != LOST and now < node.expires_at:
        raise Refused(
            f"another server named {beat.server}, with data directory {node.uuid}, is or may be alive at"
            f" {node.endpoint}; stop it, or start this one under another name"
        )
    if beat.incarnation in node.past_lives:
        raise Refused(f"this heartbeat is from an earlier life of {beat.server}")
    if node.group and beat.uuid in node.retired_uuids:
        raise Refused(
            f"the data directory {beat.uuid} of {beat.server} was retired from a group: wipe it, or bring"
            f" back the one that belongs to group {node.group}"
        )
    if node.group and not node.placed and beat.group not in (0, node.group):
        raise Refused(f"server {beat.server} belongs to group {node.group}, not to group {beat.group}")


def check_name(server: str) -> None:
    """Raises BadRequest for a name that no server can have."""
    if not server or len(server) > NAME_LENGTH_MAX or not server.isprintable() or server != server.strip():
        raise BadRequest(f"{server!r} is not a name for a server")
