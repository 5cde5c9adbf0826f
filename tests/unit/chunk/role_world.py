"""Chunk roles with real engines on fake disks, a hand-made master, and no network.

``World`` holds any number of servers.  Everything is done by ``step``: it delivers one message or runs one
job.  Time stands still until a test moves it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from fabric.chunk.role import ChunkRole
from fabric.errors import Unavailable
from fabric.node.effects import WORKER, Effect, Exit, Reply, Run, Send, Sender
from fabric.settings import Settings
from fabric.wire import codec
from fabric.wire.messages import (
    Assignment,
    Audited,
    AuditFragments,
    Failed,
    FragmentStored,
    Heartbeat,
    Member,
    Message,
    Request,
    StoreFragment,
)
from tests.unit.chunk.engine_bench import Bench, checksum_of, payload_of

MASTER = "tcp://master:7400"
GROUP = 1
CLIENT = b"client"
SETTINGS = Settings(data_file_bytes_max=4 * 1024 * 1024, reserve_bytes=0, audit_interval_s=1e9)


def endpoint(server: str) -> str:
    return f"tcp://{server}:7410"


class Server:
    """A role, its engine, and the jobs that its lanes have not begun."""

    def __init__(self, name: str, bench: Bench, settings: Settings, seed: int) -> None:
        self.name = name
        self.bench = bench
        self.lanes: dict[str, deque[object]] = {
            "write": deque(),
            "read": deque(),
            "background": deque(),
        }
        self.role = ChunkRole(
            server=name,
            uuid="ab" * 16,
            incarnation=seed,
            endpoint=endpoint(name),
            group=GROUP,
            master=MASTER,
            settings=settings,
            rng=random.Random(seed),
            version="test",
            host="this host",
            directory="/data/fragments",
        )


class World:
    def __init__(
        self, *names: str, settings: Settings = SETTINGS, automatic: bool = True, silent: bool = False
    ) -> None:
        """``automatic``: jobs run by themselves; else only by ``run_job``."""
        self.now = 100.0
        self.automatic = automatic
        self.settings = settings
        self.servers: dict[str, Server] = {}
        self.replies: dict[int, tuple[Message, Any]] = {}
        """What clients were answered, by request id."""
        self.beats: list[Heartbeat] = []
        self.audits: list[AuditFragments] = []
        self.judge: Callable[[AuditFragments], Message] = lambda page: Audited([], 0)
        """What the master answers to a page of an audit."""
        self.sent: list[tuple[str, Send]] = []
        """Every request between servers: (who asked, what)."""
        self.cut: set[str] = set()
        """Servers and "master" that cannot be reached."""
        self.assignments: dict[str, Assignment] = {}
        """What the master answers each server."""
        self.exits: dict[str, str] = {}
        """Servers that ended themselves, and why."""
        self.silent = silent
        """The master takes heartbeats and does not answer."""
        self._events: deque[tuple[str, Message, Sender, Any]] = deque()
        self._asked = 0
        for name in names or ("a",):
            self.add(name)

    def add(self, name: str, bench: Bench | None = None) -> Server:
        server = Server(name, bench or Bench(settings=self.settings), self.settings, len(self.servers) + 1)
        self.servers[name] = server
        self.assignments[name] = Assignment(1, 0, 0, "WAIT", [], [], 4000)
        self._do(server, server.role.start(self.now))
        self.settle()
        return server

    # --- the master -------------------------------------------------------------------------------

    def assign(
        self, mode: str, epoch: int, *, deletes: dict[str, list[int]] | None = None, term: int = 1
    ) -> None:
        """What the master tells all servers from now on; it tells them at once."""
        members = [Member(name, endpoint(name)) for name in self.servers]
        for name in self.servers:
            fids = (deletes or {}).get(name, [])
            self.assignments[name] = Assignment(term, GROUP, epoch, mode, members, fids, 4000)
        self.tell()

    def tell(self) -> None:
        for name, assignment in self.assignments.items():
            self._events.append((name, assignment, Sender(MASTER, 0), None))
        self.settle()

    def beat(self, name: str = "a") -> Heartbeat:
        """The last heartbeat of this server."""
        return next(beat for beat in reversed(self.beats) if beat.server == name)

    # --- clients ----------------------------------------------------------------------------------

    def ask(self, message: Request, payload: Any = None, name: str = "a") -> int:
        """Send a request; returns the id under which ``replies`` will have the answer."""
        self._asked += 1
        self._events.append((name, message, Sender(CLIENT, self._asked), payload))
        self.settle()
        return self._asked

    def answer(self, message: Request, payload: Any = None, name: str = "a") -> Any:
        """Send a request and return the answer's message."""
        return self.replies[self.ask(message, payload, name)][0]

    def store(
        self, fid: int, *, epoch: int = 1, deadline_ms: int = 3000, name: str = "a", size: int = 100
    ) -> int:
        payload = payload_of(fid, size)
        return self.ask(StoreFragment(deadline_ms, GROUP, epoch, fid, checksum_of(payload)), payload, name)

    def outcome(self, request_id: int) -> str:
        """ "stored", an error's code, or "" while there is no answer."""
        if request_id not in self.replies:
            return ""
        message = self.replies[request_id][0]
        if isinstance(message, Failed):
            return message.code
        return "stored" if isinstance(message, FragmentStored) else type(message).__name__

    # --- doing ------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Deliver everything; with ``automatic`` run everything; until nothing is left at this time."""
        for _ in range(200_000):
            if self._events:
                name, message, sender, payload = self._events.popleft()
                server = self.servers[name]
                self._do(server, server.role.receive(message, sender, self.now, payload))
            elif not self._tick() and not (self.automatic and self._run_any()):
                return
        raise AssertionError("it never settles")

    def advance(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline."""
        end = self.now + seconds
        while (at := self._next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.settle()
        self.now = end
        self.settle()

    def run_job(self, lane: str = "write", name: str = "a") -> bool:
        """Run the next job of a lane; False when there is none."""
        server = self.servers[name]
        if not server.lanes[lane]:
            return False
        event = server.bench.engine.run(server.lanes[lane].popleft())
        self._do(server, server.role.receive(event, WORKER, self.now))
        self.settle()
        return True

    def run_reads(self, name: str = "a") -> None:
        while self.run_job("read", name):
            pass

    def _next_deadline(self) -> float | None:
        deadlines = [server.role.next_deadline() for server in self.servers.values()]
        return min((at for at in deadlines if at is not None), default=None)

    def _tick(self) -> bool:
        for server in self.servers.values():
            at = server.role.next_deadline()
            if at is not None and at <= self.now:
                self._do(server, server.role.on_tick(self.now))
                return True
        return False

    def _run_any(self) -> bool:
        for server in self.servers.values():
            for jobs in server.lanes.values():
                if jobs:
                    event = server.bench.engine.run(jobs.popleft())
                    self._do(server, server.role.receive(event, WORKER, self.now))
                    return True
        return False

    def _do(self, server: Server, effects: list[Effect]) -> None:
        for effect in [*effects, *server.role.on_turn_end(self.now)]:
            if isinstance(effect, Run):
                server.lanes[effect.lane].append(effect.job)
            elif isinstance(effect, Exit):
                self.exits[server.name] = effect.reason
            elif isinstance(effect, Reply):
                self._reply(server, effect)
            elif isinstance(effect, Send):
                self._send(server, effect)
            else:
                raise AssertionError(f"unexpected {effect}")

    def _reply(self, server: Server, effect: Reply) -> None:
        codec.decode(codec.encode(1, effect.message))  # it must fit the protocol
        codec.check_payload(effect.message, [effect.payload] if effect.payload is not None else [])
        if effect.to.route == CLIENT:
            assert effect.to.request_id not in self.replies, "answered twice"
            self.replies[effect.to.request_id] = (effect.message, effect.payload)
        elif server.name not in self.cut:
            asker = str(effect.to.route)
            sender = Sender(endpoint(server.name), effect.to.request_id)
            self._events.append((asker, effect.message, sender, effect.payload))

    def _send(self, server: Server, effect: Send) -> None:
        codec.decode(codec.encode(1, effect.message))
        sender = Sender(effect.endpoint, effect.request_id)
        if effect.endpoint == MASTER and isinstance(effect.message, AuditFragments):
            self.audits.append(effect.message)
            is_cut = "master" in self.cut
            answer = codec.failed(Unavailable("cut")) if is_cut else self.judge(effect.message)
            self._events.append((server.name, answer, sender, None))
            return
        if effect.endpoint == MASTER:
            assert isinstance(effect.message, Heartbeat)
            if "master" in self.cut:
                self._events.append((server.name, codec.failed(Unavailable("cut")), sender, None))
                return
            self.beats.append(effect.message)
            if not self.silent:
                self._events.append((server.name, self.assignments[server.name], sender, None))
            return
        self.sent.append((server.name, effect))
        target = effect.endpoint.removeprefix("tcp://").removesuffix(":7410")
        if target in self.cut or server.name in self.cut:
            self._events.append((server.name, codec.failed(Unavailable("cut")), sender, None))
            return
        # A server's name is its route, so that ``_reply`` finds the way back.
        self._events.append((target, effect.message, Sender(server.name, effect.request_id), effect.payload))
