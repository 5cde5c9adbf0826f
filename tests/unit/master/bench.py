"""A master on a bench: its messages, its clock and its store are in the test's hands."""

from __future__ import annotations

import random
from typing import TypeVar

import msgspec

from fabric.master.role import MasterRole
from fabric.master.store import Store, store_worker
from fabric.node.effects import WORKER, Effect, Exit, Publish, Reply, Run, Sender
from fabric.settings import Settings
from fabric.wire.messages import (
    AnyOperation,
    Assignment,
    Commit,
    Committed,
    Failed,
    FidLease,
    FragmentRef,
    Heartbeat,
    LeaseFids,
    Message,
    Topology,
)
from sim.store import MemoryStore

GIB = 1024**3
SETTINGS = Settings(lease_s=4.0, fid_lease_s=600.0, delete_grace_s=30.0)

M = TypeVar("M", bound=Message)


def route(server: str) -> bytes:
    return b"route of " + server.encode()


class MasterBench:
    """One life after the other of a master over one store.

    ``tell`` delivers a message and lets the store write at once; with ``hold`` set, writes wait for
    ``write_held``.  Effects that are left (replies, publications, exits) come back in order.
    """

    def __init__(
        self, store: Store | None = None, replicas: int = 3, settings: Settings = SETTINGS, start: bool = True
    ) -> None:
        self.store: Store = store if store is not None else MemoryStore()
        self.replicas = replicas
        self.settings = settings
        self.now = 0.0
        self.hold = False
        self.held: list[Run] = []
        self._request_id = 0
        self._operation = 0
        if start:
            self.restart()

    def restart(self) -> list[Effect]:
        """Kill the master, its held writes with it, and start another over what is durable."""
        self.held = []
        self.role = MasterRole(
            store=self.store,
            settings=self.settings,
            rng=random.Random(0),
            replicas=self.replicas,
            wall_offset_s=1_000_000.0,
            version="test",
        )
        return self._settle(self.role.start(self.now))

    def tell(self, message: Message, sender: Sender | None = None) -> list[Effect]:
        """Deliver a message."""
        return self._settle(self.role.receive(message, sender or self.sender(), self.now))

    def sender(self) -> Sender:
        self._request_id += 1
        return Sender(b"client", self._request_id)

    def tick(self, now: float) -> list[Effect]:
        """Let time pass until ``now``, waking the master at its deadlines."""
        effects: list[Effect] = []
        while (due := self.role.next_deadline()) is not None and due <= now:
            self.now = max(self.now, due)
            effects += self._settle(self.role.on_tick(self.now))
        self.now = now
        return effects + self._settle(self.role.on_tick(now))

    def write_held(self) -> list[Effect]:
        """Let the store write what it holds; what this leads to is held again."""
        jobs, self.held = self.held, []
        effects: list[Effect] = []
        for run in jobs:
            result = store_worker(self.store)(run.job)
            effects += self._settle(self.role.receive(result, WORKER, self.now))
        return effects

    def _settle(self, effects: list[Effect]) -> list[Effect]:
        left: list[Effect] = []
        queue = [*effects, *self.role.on_turn_end(self.now)]
        while queue:
            effect = queue.pop(0)
            if not isinstance(effect, Run):
                left.append(effect)
            elif self.hold:
                self.held.append(effect)
            else:
                assert effect.lane == "store"
                queue += self.role.receive(store_worker(self.store)(effect.job), WORKER, self.now)
                queue += self.role.on_turn_end(self.now)
        return left

    # --- conversations ----------------------------------------------------------------------------

    def ask(self, message: Message, expect: type[M]) -> M:
        """The one reply to a request, which must be of this kind."""
        sender = self.sender()
        replies = [e.message for e in self.tell(message, sender) if isinstance(e, Reply) and e.to == sender]
        assert len(replies) == 1, replies
        assert isinstance(replies[0], expect), replies[0]
        return replies[0]

    def refused(self, message: Message) -> Failed:
        return self.ask(message, Failed)

    def commit(self, *operations: AnyOperation, operation_id: bytes | None = None) -> Committed:
        return self.ask(self.commit_message(*operations, operation_id=operation_id), Committed)

    def commit_refused(self, *operations: AnyOperation) -> Failed:
        return self.ask(self.commit_message(*operations), Failed)

    def commit_message(self, *operations: AnyOperation, operation_id: bytes | None = None) -> Commit:
        self._operation += 1
        return Commit(10_000, operation_id or self._operation.to_bytes(16, "big"), list(operations))

    def lease(self, count: int = 1000) -> FidLease:
        return self.ask(LeaseFids(1_000, "proxy", count), FidLease)

    def heartbeat(self, server: Server) -> list[Effect]:
        """The effects of this server's heartbeat; it adopts every assignment that they bring it."""
        effects = self.tell(server.beat(), Sender(route(server.name), 1))
        deliver(effects, server)
        return effects

    def make_writable(self, *servers: Server) -> None:
        """Walk a group from nothing to writable."""
        for server in servers:
            deliver(self.heartbeat(server), *servers)
        for server in servers:
            server.synced_digest = b"equal"
            deliver(self.heartbeat(server), *servers)
        assert {server.mode for server in servers} == {"RW"}


class Server(msgspec.Struct):
    """A chunk server as the master sees it: what it would say next."""

    name: str
    group: int = 0
    uuid: str = ""
    incarnation: int = 1
    term: int = 0
    epoch: int = 0
    mode: str = ""
    synced_digest: bytes = b""
    read_only_reason: str = ""
    deletes: list[int] = []
    deleted: list[int] = []
    free_bytes: int = 100 * GIB
    live_bytes: int = 0

    def beat(self) -> Heartbeat:
        return Heartbeat(
            1_000,
            self.name,
            self.uuid or f"uuid-of-{self.name}",
            self.incarnation,
            f"tcp://{self.name}:7410",
            self.group,
            self.term,
            self.epoch,
            self.synced_digest,
            self.read_only_reason,
            0,
            self.live_bytes,
            self.free_bytes,
            200 * GIB,
            0,
            self.deleted,
        )

    def adopt(self, assignment: Assignment) -> None:
        if (assignment.term, assignment.epoch) < (self.term, self.epoch):
            return
        if (assignment.term, assignment.epoch) != (self.term, self.epoch):
            self.synced_digest = b""
        self.term, self.epoch, self.mode = assignment.term, assignment.epoch, assignment.mode
        self.deletes = assignment.deletes

    def restart(self, uuid: str = "") -> None:
        """Die and come back, with another directory if ``uuid`` is given."""
        self.incarnation += 1
        self.uuid = uuid or self.uuid
        self.term = self.epoch = 0
        self.synced_digest = b""
        self.mode = ""


def deliver(effects: list[Effect], *servers: Server) -> None:
    """Bring each server the assignments that are for it."""
    by_route = {route(server.name): server for server in servers}
    for effect in effects:
        if isinstance(effect, Reply) and isinstance(effect.message, Assignment):
            server = by_route.get(bytes(effect.to.route) if isinstance(effect.to.route, bytes) else b"")
            if server is not None:
                server.adopt(effect.message)


def assignments(effects: list[Effect]) -> dict[str, Assignment]:
    """Server name -> the last assignment that it is sent."""
    prefix = route("").decode()
    return {
        effect.to.route.decode().removeprefix(prefix): effect.message
        for effect in effects
        if isinstance(effect, Reply)
        and isinstance(effect.message, Assignment)
        and isinstance(effect.to.route, bytes)
    }


def topologies(effects: list[Effect]) -> list[Topology]:
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Publish) and isinstance(effect.message, Topology)
    ]


def exits(effects: list[Effect]) -> list[Exit]:
    return [effect for effect in effects if isinstance(effect, Exit)]


def three_servers() -> tuple[Server, Server, Server]:
    return Server("chunk-1"), Server("chunk-2"), Server("chunk-3")


def writable_bench(replicas: int = 3) -> tuple[MasterBench, tuple[Server, ...]]:
    """A master with one writable group 1."""
    bench = MasterBench(replicas=replicas)
    servers = three_servers()[:replicas]
    bench.make_writable(*servers)
    return bench, servers


def fragment(fid: int, length: int = 100, group: int = 1) -> FragmentRef:
    return FragmentRef(group, fid, length, fid * 7)
