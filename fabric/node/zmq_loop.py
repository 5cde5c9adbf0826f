"""The shell of a role: one thread, its sockets, its clock, its lanes.

It polls, decodes what arrives, hands it to the role, and does the effects that come back.  All
decisions are the role's.  What the loop adds is the world's noise turned into plain events: a
malformed message is answered by ``Failed`` and forgotten, a request to a peer that is gone comes
back as ``Failed(UNAVAILABLE)``, a reply that a slow peer does not take waits in a queue with a limit.

It waits with epoll for descriptors, ZeroMQ's among them: polling sockets costs ten times as much.  The
descriptor of a socket tells only that its state has changed since somebody looked, and sending looks too.  So
the loop never sleeps before it has read every socket until it was empty, and looked once more at those on
which it has sent since.
"""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import zmq

from fabric.errors import BadMessage, Busy, FabricError, MemoryGone, Unavailable
from fabric.node import bundles, frames, shared_memory
from fabric.node.effects import WORKER, Effect, Exit, Publish, Reply, Run, Send, Sender, Unread
from fabric.node.lanes import Crashed, Lane, Lanes
from fabric.node.peer import Peer, Received
from fabric.node.process import set_up_process
from fabric.node.role import Role
from fabric.node.signals import drain, ending_on_signals
from fabric.node.sockets import descriptor, make_context, make_socket, readable
from fabric.settings import FRAMES_MAX
from fabric.wire import codec
from fabric.wire.messages import MemoryProbed, Message, ProbeMemory, Request

MESSAGES_PER_TURN_MAX = 128
"""Read from one socket before the others and the clock get their turn."""
REPLIES_HELD_BYTES_MAX = 64 * 1024 * 1024
"""Of replies that wait for slow peers; beyond it their answer is BUSY."""
REFUSALS_HELD_BYTES_MAX = 4 * 1024 * 1024
REPLIES_TOGETHER = 8
"""So many replies to a bundle that is still being worked on go ahead: their receiver works meanwhile."""
RETRY_REPLIES_S = 0.005
LANES_CLOSE_S = 30.0

log = logging.getLogger("fabric")


class BindFailed(FabricError):
    """The endpoint cannot be listened on."""

    code = "BIND_FAILED"


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise BindFailed(
            f"cannot listen on {endpoint}: {error.strerror}. Is another process using the port?"
        ) from error
    return socket.getsockopt(zmq.LAST_ENDPOINT).decode()  # type: ignore[union-attr]


class ZmqLoop:
    """Runs one role until SIGTERM, SIGINT, ``stop()`` or an ``Exit`` effect."""

    def __init__(
        self,
        role: Role,
        *,
        listen: str | None,
        publish: str | None = None,
        subscribe: Sequence[str] = (),
        lanes: Mapping[str, Lane] | None = None,
        shares_memory: bool = False,
    ) -> None:
        """Bind ``listen`` (ROUTER) and ``publish`` (PUB), connect to ``subscribe`` (SUB).

        ``shares_memory``: payloads in the memory of processes on this machine are read there.

        Raises BindFailed.
        """
        set_up_process()
        self._role = role
        self._shares_memory = shares_memory
        self._context: zmq.Context[zmq.Socket[bytes]] = make_context()
        self._router = make_socket(self._context, zmq.ROUTER)
        self._publisher = make_socket(self._context, zmq.PUB) if publish is not None else None
        try:
            self.endpoint = _bind(self._router, listen) if listen is not None else ""
            if self._publisher is not None and publish is not None:
                _bind(self._publisher, publish)
        except BindFailed:
            self._context.destroy(0)
            raise
        self._lanes = Lanes(lanes or {})
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._ready: set[int] = set()
        """Descriptors of sockets that still have something to read."""
        self._sent: dict[int, zmq.Socket[bytes]] = {}
        """Sockets on which something was sent since they were looked at."""
        self._peers: dict[str, Peer] = {}
        self._blocked: set[str] = set()
        self._unsent: deque[tuple[Sender, FabricError]] = deque()
        """Requests that could not be sent or lost their connection, and why; the role hears of them next."""
        self._replies: dict[bytes, deque[bundles.Unsent]] = {}
        """Of this turn, for peers that take bundles."""
        self._unflushed: set[str] = set()
        """Peers for which this turn has requests."""
        self._held: dict[bytes, deque[tuple[bytes, bytes, Any]]] = {}
        self._held_bytes = 0
        self._status: int | None = None
        self._router_fd = descriptor(self._router)
        self._watch_socket(self._router, self._on_router)
        self._watch(self._lanes.wake_fd, self._on_results)
        for endpoint in subscribe:
            self._subscribe(endpoint)

    def run(self) -> int:
        """Serve until told to end; returns the exit status.

        In the main thread SIGTERM and SIGINT end it; elsewhere only ``stop`` and the role do.
        """
        try:
            with ending_on_signals(self.stop) as signals_fd:
                if signals_fd is not None:
                    self._watch(signals_fd, lambda: drain(signals_fd))
                self._do(self._role.start(time.monotonic()))
                self._end_turn()
                while self._status is None:
                    self._turn()
        finally:
            self._close()
        return self._status

    def stop(self) -> None:
        """Make ``run`` return 0; callable from a signal handler or another thread."""
        if self._status is None:
            self._status = 0
        self._lanes.wake()

    def _turn(self) -> None:
        ready = self._look()
        # What this turn brings closer is looked at in the next.
        deadline = self._role.next_deadline()
        for fd, _ in self._epoll.poll(0 if ready else self._timeout_s(deadline)):
            ready.add(fd)
        for fd in ready:
            self._handlers[fd]()
        if self._held:
            self._retry_replies()
        self._unflushed |= self._blocked
        now = time.monotonic()
        if self._status is None and deadline is not None and deadline <= now:
            self._do(self._role.on_tick(now))
        self._end_turn()

    def _end_turn(self) -> None:
        if self._status is None:
            self._do(self._role.on_turn_end(time.monotonic()))
        self._flush()

    def _look(self) -> set[int]:
        """What can be read without waiting for a descriptor."""
        ready, self._ready = self._ready, set()
        for fd, socket in self._sent.items():
            if fd not in ready and readable(socket):
                ready.add(fd)
        self._sent.clear()
        return ready

    def _timeout_s(self, deadline: float | None) -> float:
        if self._held or self._blocked:
            return RETRY_REPLIES_S
        if deadline is None:
            return -1.0
        return max(0.0, deadline - time.monotonic())

    # --- in ---------------------------------------------------------------------------------------

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def _watch_socket(self, socket: zmq.Socket[bytes], handler: Callable[[], None]) -> None:
        fd = descriptor(socket)
        self._watch(fd, handler)
        self._sent[fd] = socket  # it may have something to read already

    def _receive(self, message: object, sender: Sender, payload: Any = None) -> None:
        # The clock is read for every message: a lease may run out while a turn lasts.
        self._do(self._role.receive(message, sender, time.monotonic(), payload))

    def _on_router(self) -> None:
        router = self._router
        for _ in range(MESSAGES_PER_TURN_MAX):
            if self._status is not None:
                return
            try:
                parts = frames.receive_frames(router, FRAMES_MAX + 2)
            except zmq.Again:
                return
            route = parts.pop(0).bytes
            correlation = frames.take_correlation(parts)
            try:
                for header, payloads in frames.split(parts):
                    self._on_request(header, payloads, route, correlation)
                    if len(self._replies.get(route, ())) >= REPLIES_TOGETHER:
                        self._flush_replies(route, self._replies.pop(route))
            except BadMessage as error:
                self._refuse(error, route, correlation)
            if not readable(router):
                return
        self._ready.add(self._router_fd)

    def _on_request(self, header: bytes, payloads: Sequence[Any], route: bytes, correlation: bytes) -> None:
        try:
            request_id, message, payload = frames.parse(header, payloads)
        except BadMessage as error:
            self._refuse(error, route, correlation)
            return
        if isinstance(message, ProbeMemory):
            is_visible = self._shares_memory and shared_memory.is_visible(message)
            self._reply(Sender(route, request_id, correlation), MemoryProbed(is_visible), None)
        elif isinstance(payload, Unread) and not self._shares_memory:
            refusal = codec.failed(MemoryGone("the memory of others is not read here"))
            self._reply(Sender(route, request_id, correlation), refusal, None)
        else:
            self._receive(message, Sender(route, request_id, correlation), payload)

    def _refuse(self, error: BadMessage, route: bytes, correlation: bytes) -> None:
        log.warning("refused a message: %s", error.message)
        self._reply(Sender(route, error.request_id, correlation), codec.failed(error), None)

    def _on_answers(
        self,
        socket: zmq.Socket[bytes],
        what: str,
        receive: Callable[[], list[Received]],
        take: Callable[[int, Message, Any], None],
    ) -> None:
        """Take in what a peer answers or publishes: anything but a request."""
        for _ in range(MESSAGES_PER_TURN_MAX):
            if self._status is not None:
                return
            try:
                received = receive()
            except zmq.Again:
                return
            except BadMessage as error:
                log.warning("%s sent what is not a message: %s", what, error.message)
                continue
            for request_id, message, payload in received:
                if isinstance(message, Request):
                    # It could not be answered: an answer goes to a route of our own ROUTER.
                    log.warning("%s sent a request where answers belong: %s", what, type(message).__name__)
                else:
                    take(request_id, message, payload)
            if not readable(socket):
                return
        self._ready.add(descriptor(socket))

    def _on_peer(self, peer: Peer) -> None:
        def take(request_id: int, message: Message, payload: Any) -> None:
            peer.unanswered.discard(request_id)
            self._receive(message, Sender(peer.endpoint, request_id), payload)

        self._on_answers(peer.socket, peer.endpoint, peer.receive, take)

    def _on_monitor(self, peer: Peer) -> None:
        self._unflushed.add(peer.endpoint)  # what waited for the connection can be sent now
        for request_id in peer.on_monitor():
            self._note_unsent(peer.endpoint, request_id)
        self._do([])

    def _subscribe(self, endpoint: str) -> None:
        socket = make_socket(self._context, zmq.SUB)
        socket.connect(endpoint)

        def receive() -> list[Received]:
            parts = frames.receive_frames(socket, FRAMES_MAX)
            return [frames.parse(header, payloads) for header, payloads in frames.split(parts)]

        def take(request_id: int, message: Message, payload: Any) -> None:
            self._receive(message, Sender("published", 0))

        self._watch_socket(socket, lambda: self._on_answers(socket, endpoint, receive, take))

    def _on_results(self) -> None:
        for result in self._lanes.results():
            if isinstance(result, Crashed):
                log.critical("lane %s crashed:\n%s", result.lane, result.trace)
                self._status = 70
                return
            self._receive(result, WORKER)

    # --- out --------------------------------------------------------------------------------------

    def _do(self, effects: list[Effect]) -> None:
        """Do these in order, then tell the role which of its requests cannot be answered any more.

        The role hears of a failed ``Send`` only when all effects of the same list are done: what it
        does about it must not overtake them.
        """
        self._do_each(effects)
        while self._unsent and self._status is None:
            sender, error = self._unsent.popleft()
            self._do_each(self._role.receive(codec.failed(error), sender, time.monotonic()))

    def _do_each(self, effects: list[Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Reply:
                self._reply(effect.to, effect.message, effect.payload)  # type: ignore[union-attr]
            elif kind is Send:
                self._send(effect)  # type: ignore[arg-type]
            elif kind is Run:
                self._lanes.submit(effect.lane, effect.job)  # type: ignore[union-attr]
            elif isinstance(effect, Publish):
                if self._publisher is not None:
                    frames.send_frames(self._publisher, None, codec.encode(0, effect.message), None)
            elif isinstance(effect, Exit):
                log.critical("%s", effect.reason)
                self._status = effect.status

    def _reply(self, to: Sender, message: Message, payload: Any) -> None:
        assert isinstance(to.route, bytes)
        header = codec.encode(to.request_id, message)
        if bundles.asks(to.request_id) and bundles.is_small(payload) and not to.correlation:
            self._replies.setdefault(to.route, deque()).append((header, payload))
        else:
            self._reply_now(to.route, to.correlation, header, payload)

    def _reply_now(self, route: bytes, correlation: bytes, header: bytes, payload: Any) -> None:
        if route in self._held or not self._try_reply(route, correlation, header, payload):
            self._hold(route, correlation, header, payload)

    def _flush(self) -> None:
        """Send what was gathered in this turn, together where it goes to one peer."""
        replies, self._replies = self._replies, {}
        for route, queue in replies.items():
            self._flush_replies(route, queue)
        unflushed, self._unflushed = self._unflushed, set()
        for endpoint in unflushed:
            self._flush_peer(endpoint)

    def _flush_replies(self, route: bytes, queue: deque[bundles.Unsent]) -> None:
        while queue:
            count, unsent = bundles.take(queue)
            # One alone goes as a bundle too: so the peer learns that it may send them.
            self._reply_now(route, b"", bundles.encode([unsent]) if count == 1 else unsent[0], None)
            for _ in range(count):
                queue.popleft()

    def _try_reply(self, route: bytes, correlation: bytes, header: bytes, payload: Any) -> bool:
        """False when the peer's queue is full.  A reply to a peer that is gone is done with."""
        self._sent[self._router_fd] = self._router
        try:
            frames.send_frames(self._router, route, header, payload, correlation)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
        return True

    def _hold(self, route: bytes, correlation: bytes, header: bytes, payload: Any) -> None:
        size = len(header) + (len(payload) if payload is not None else 0)
        if self._held_bytes + size > REPLIES_HELD_BYTES_MAX and payload is not None:
            # It may ask again; without any answer it would wait until its deadline.
            busy = Busy("too many bytes wait for peers that do not take their replies")
            header, payload = codec.encode(codec.request_id_of(header), codec.failed(busy)), None
            size = len(header)
        if self._held_bytes + size > REPLIES_HELD_BYTES_MAX + REFUSALS_HELD_BYTES_MAX:
            log.warning("a peer does not take its replies; one was dropped")
            return
        self._held.setdefault(route, deque()).append((correlation, header, payload))
        self._held_bytes += size

    def _retry_replies(self) -> None:
        """A slow peer waits alone: every route has its own queue."""
        for route in list(self._held):
            queue = self._held[route]
            while queue and self._try_reply(route, *queue[0]):
                _, header, payload = queue.popleft()
                self._held_bytes -= len(header) + (len(payload) if payload is not None else 0)
            if not queue:
                del self._held[route]

    def _send(self, effect: Send) -> None:
        peer = self._peers.get(effect.endpoint)
        if peer is None:
            peer = self._connect(effect.endpoint)
        # Also when nothing is queued: the peer may have been asked whether it reads memory.
        self._unflushed.add(effect.endpoint)
        try:
            is_queued = peer.send(effect.request_id, effect.message, effect.payload)
        except MemoryGone as error:
            self._unsent.append((Sender(effect.endpoint, effect.request_id), error))
            return
        if not is_queued:
            self._note_unsent(effect.endpoint, effect.request_id)

    def _note_unsent(self, endpoint: str, request_id: int) -> None:
        error = Unavailable(f"{endpoint} cannot be reached")
        self._unsent.append((Sender(endpoint, request_id), error))

    def _flush_peer(self, endpoint: str) -> None:
        peer = self._peers[endpoint]
        self._sent[peer.fd] = peer.socket
        peer.flush()
        if peer.waiting:
            self._blocked.add(endpoint)
        else:
            self._blocked.discard(endpoint)

    def _connect(self, endpoint: str) -> Peer:
        peer = Peer(self._context, endpoint, shares_memory=self._shares_memory)
        self._peers[endpoint] = peer
        self._watch_socket(peer.socket, lambda: self._on_peer(peer))
        self._watch(descriptor(peer.monitor), lambda: self._on_monitor(peer))
        return peer

    def _close(self) -> None:
        self._flush()
        self._lanes.close(LANES_CLOSE_S)
        for peer in self._peers.values():
            peer.close()
        self._epoll.close()
        self._context.destroy()
