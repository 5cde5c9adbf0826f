"""Connections between processes, and all that goes wrong with them.

Modelled on ZeroMQ over TCP as the fabric uses it.  A request goes over the asker's connection to an
endpoint, its answer comes back over the same.  Within a connection order holds, unless ``reorders`` is
set, which shuffles the traffic of fragments.  A connection breaks when a process dies, and when nothing
passes for ``TIMEOUT_S`` (cut link, stopped process): then all open requests on it fail as UNAVAILABLE,
and what was under way is lost.  What a shorter cut held up arrives when it is over.  A message may also
just vanish (a full queue does that).  Publications may vanish, come twice and in any order.

Every message is encoded and decoded on its way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fabric.node.effects import Reply, Send, Sender
from fabric.wire import codec
from fabric.wire.messages import (
    AbortFragment,
    FragmentAborted,
    FragmentData,
    FragmentsStored,
    FragmentStored,
    GetTopology,
    ListBuckets,
    Message,
    ReadFragment,
    ReportFailure,
    StoreFragment,
    StoreFragments,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.process import Process
    from sim.world import World

TIMEOUT_S = 6.0
"""ZeroMQ's heartbeat: a connection on which nothing passes for so long is broken."""
NOTICE_S = 0.001
_REORDERED = (
    StoreFragment,
    FragmentStored,
    StoreFragments,
    FragmentsStored,
    ReadFragment,
    FragmentData,
    AbortFragment,
    FragmentAborted,
)
_DOUBLED = (
    StoreFragment,
    StoreFragments,
    ReadFragment,
    AbortFragment,
    GetTopology,
    ReportFailure,
    ListBuckets,
)


class _Route(msgspec.Struct, frozen=True):
    asker: Any
    life: int
    server: Any
    connection: int


class _Open(msgspec.Struct, frozen=True):
    request: Message
    payload: Any
    connection: int


class Network:
    """All connections.  Probabilities are set by the run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._listeners: dict[str, Process] = {}
        self.delay_s = (0.0002, 0.002)
        self.tail_share, self.tail_s = 0.0, 0.2
        self.loss = 0.0
        self.publish_loss = 0.0
        self.doubles = 0.0
        self.reorders = False
        self.turns_s = 0.0
        """So long a turn of a process may last: it hears of several things, and then ends it."""
        self._cuts: dict[tuple[str, str], float] = {}
        """(from, to) -> since when nothing passes."""
        self._held: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._connections: dict[tuple[str, str], int] = {}
        self._routes: dict[bytes, _Route] = {}
        self._open: dict[tuple[str, str, int], _Open] = {}
        """(asker, server, request id) -> requests without an answer."""
        self._arrived: dict[tuple[str, str, str], float] = {}

    def listen(self, process: Process) -> None:
        """Requests to its endpoint go to it."""
        self._listeners[process.endpoint] = process

    # --- what roles do ----------------------------------------------------------------------------

    def send(self, source: Process, effect: Send) -> None:
        """A request."""
        target = self._listeners.get(effect.endpoint)
        sender = Sender(effect.endpoint, effect.request_id)
        if target is None or not self._can_connect(source, target):
            if self._world.rng.random() < 0.5:
                source.unsent(sender)
            else:
                source.later(NOTICE_S, lambda: source.unsent(sender))
            return
        for look in self._world.watchers.sends:
            look(source, target, effect.message, effect.payload)
        connection = self._connection(source, target)
        key = (source.name, target.name, effect.request_id)
        self._open[key] = _Open(effect.message, effect.payload, connection)
        route = f"{source.name}/{source.incarnation}/{connection}/{target.name}".encode()
        self._routes.setdefault(route, _Route(source, source.incarnation, target, connection))
        frame = codec.encode(effect.request_id, effect.message)
        payload = bytes(effect.payload) if effect.payload is not None else None
        life = target.incarnation

        def arrive() -> None:
            if not target.alive or target.incarnation != life:
                return
            if self._connection(source, target) != connection and source.alive:
                return
            request_id, message = codec.decode(frame)
            codec.check_payload(message, [payload] if payload is not None else [])

            def hand_over() -> None:
                self._world.saw(source.name, target.name, frame, message, len(payload or b""))
                target.receive(message, Sender(route, request_id), payload)

            target.now_or_later(hand_over)

        self._carry(source, target, effect.message, arrive)

    def reply(self, server: Process, effect: Reply) -> None:
        """An answer, or with request id 0 something unasked."""
        route = self._routes.get(bytes(effect.to.route))  # type: ignore[arg-type]
        assert route is not None, f"{server.name} answers a route that never was: {effect.to}"
        asker, request_id = route.asker, effect.to.request_id
        if self._connection(asker, server) != route.connection:
            return
        found = self._open.get((asker.name, server.name, request_id)) if request_id else None
        request, asked = (found.request, found.payload) if found is not None else (None, None)
        for look in self._world.watchers.replies:
            look(server, asker, request, asked, effect.message, effect.payload)
        frame = codec.encode(request_id, effect.message)
        payload = bytes(effect.payload) if effect.payload is not None else None
        codec.check_payload(effect.message, [payload] if payload is not None else [])

        def arrive() -> None:
            if not asker.alive or asker.incarnation != route.life:
                return
            if self._connection(asker, server) != route.connection:
                return
            _, message = codec.decode(frame)

            def hand_over() -> None:
                self._open.pop((asker.name, server.name, request_id), None)
                self._world.saw(server.name, asker.name, frame, message, len(payload or b""))
                asker.receive(message, Sender(server.endpoint, request_id), payload)

            asker.now_or_later(hand_over)

        self._carry(server, asker, effect.message, arrive)

    def publish(self, source: Process, message: Message) -> None:
        """To every proxy, or not."""
        frame = codec.encode(0, message)
        rng = self._world.rng
        for target in [p for p in self._world.processes.values() if p.kind == "proxy"]:
            while target.alive and (source.name, target.name) not in self._cuts:
                if rng.random() >= self.publish_loss:
                    self._deliver_published(source, target, frame)
                if rng.random() >= self.doubles:
                    break

    def _deliver_published(self, source: Process, target: Process, frame: bytes) -> None:
        def hand_over() -> None:
            _, message = codec.decode(frame)
            self._world.saw(source.name, target.name, frame, message, 0)
            target.receive(message, Sender("published", 0), None)

        target.later(self._delay(), hand_over)

    # --- faults -----------------------------------------------------------------------------------

    def cut(self, source: str, target: str, seconds: float) -> None:
        """Nothing passes in this one direction for so long."""
        if (source, target) in self._cuts:
            return
        world = self._world
        world.note("cut", source, target, seconds)
        since = self._cuts[source, target] = world.now

        def is_same() -> bool:
            return self._cuts.get((source, target)) == since

        world.after(TIMEOUT_S, lambda: self._break(source, target) if is_same() else None)
        world.after(seconds, lambda: self.mend(source, target) if is_same() else None)

    def mend(self, source: str, target: str) -> None:
        """It passes again, what was held up first."""
        self._cuts.pop((source, target), None)
        self._world.note("mend", source, target)
        for arrive in self._held.pop((source, target), []):
            arrive()

    def mend_all(self) -> None:
        """No cut is left, and nothing goes wrong any more."""
        self.loss = self.publish_loss = self.doubles = self.tail_share = 0.0
        self.reorders = False
        for source, target in list(self._cuts):
            self.mend(source, target)

    def break_connection(self, one: str, other: str) -> None:
        """What is under way between these two is lost; they may connect again at once."""
        self._break(one, other)

    def on_death(self, process: Process) -> None:
        """All its connections are broken."""
        for other in list(self._world.processes.values()):
            if other is not process:
                self._break(other.name, process.name)
        for key in [key for key in self._open if key[0] == process.name]:
            del self._open[key]

    def on_stopped(self, process: Process) -> None:
        """If it lasts, others give its connections up."""
        since = process.stopped_at

        def give_up() -> None:
            if process.alive and process.stopped_at == since:
                for other in list(self._world.processes.values()):
                    if other is not process:
                        self._break(other.name, process.name)

        self._world.after(TIMEOUT_S, give_up)

    # --- parts ------------------------------------------------------------------------------------

    def _can_connect(self, source: Process, target: Process) -> bool:
        if not target.alive:
            return False
        now = self._world.now
        if target.stopped_at is not None and now - target.stopped_at >= TIMEOUT_S:
            return False
        links = ((source.name, target.name), (target.name, source.name))
        return not any(now - self._cuts.get(link, now) >= TIMEOUT_S for link in links)

    def _connection(self, asker: Process, server: Process) -> int:
        return self._connections.get((asker.name, server.name), 0)

    def _break(self, one: str, other: str) -> None:
        for asker, server in ((one, other), (other, one)):
            self._connections[asker, server] = self._connections.get((asker, server), 0) + 1
            self._held.pop((asker, server), None)
            process, peer = self._world.processes[asker], self._world.processes[server]
            lost = [key for key in self._open if key[0] == asker and key[1] == server]
            for key in lost:
                del self._open[key]
                sender = Sender(peer.endpoint, key[2])
                process.later(NOTICE_S, partial(process.unsent, sender))

    def _delay(self) -> float:
        rng = self._world.rng
        if rng.random() < self.tail_share:
            return rng.uniform(0.0, self.tail_s)
        return rng.uniform(*self.delay_s)

    def _carry(self, source: Process, target: Process, message: Message, arrive: Callable[[], None]) -> None:
        """Bring it there, late, twice or not at all."""
        world, link = self._world, (source.name, target.name)
        if self.loss and world.rng.random() < self.loss:
            return

        def at_the_end() -> None:
            if link in self._cuts:
                self._held.setdefault(link, []).append(arrive)
            else:
                arrive()

        at = world.now + self._delay()
        if not (self.reorders and isinstance(message, _REORDERED)):
            # One connection for what it asks, another for what it answers.
            way = (*link, "request" if message.__class__.__name__ in _REQUESTS else "answer")
            at = self._arrived[way] = max(at, self._arrived.get(way, 0.0) + 1e-9)
        world.after(at - world.now, at_the_end)
        if isinstance(message, _DOUBLED) and self.doubles and world.rng.random() < self.doubles:
            world.after(at - world.now + self._delay(), at_the_end)


_REQUESTS = frozenset(
    kind.__name__ for kind in codec.KINDS.values() if "deadline_ms" in kind.__struct_fields__
)
