"""The shell of a role: one thread, its sockets, its clock, its lanes.

It polls, decodes what arrives, hands it to the role, and does the effects that come back.  All
decisions are the role's.  What the loop adds is the world's noise turned into plain events: a
malformed message is answered by ``Failed`` and forgotten, a request to a peer that is gone comes
back as ``Failed(UNAVAILABLE)``, a reply that a slow peer does not take waits in a queue with a limit.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import zmq

from fabric.errors import BadMessage, FabricError, Unavailable
from fabric.node import frames
from fabric.node.effects import WORKER, Effect, Exit, Publish, Reply, Run, Send, Sender
from fabric.node.lanes import Crashed, Lane, Lanes
from fabric.node.peer import Peer
from fabric.node.role import Role
from fabric.node.sockets import make_socket
from fabric.settings import FRAMES_MAX
from fabric.wire import codec

MESSAGES_PER_TURN_MAX = 128
"""Read from one socket before the others and the clock get their turn."""
REPLIES_HELD_BYTES_MAX = 64 * 1024 * 1024
RETRY_REPLIES_MS = 5
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
    ) -> None:
        """Bind ``listen`` (ROUTER) and ``publish`` (PUB), connect to ``subscribe`` (SUB).

        Raises BindFailed.
        """
        self._role = role
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
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
        self._poller = zmq.Poller()
        self._handlers: dict[Any, Callable[[float], None]] = {}
        self._peers: dict[str, Peer] = {}
        self._blocked: set[str] = set()
        self._held: dict[bytes, deque[tuple[bytes, Any]]] = {}
        self._held_bytes = 0
        self._status: int | None = None
        self._watch(self._router, self._on_router)
        self._watch(self._lanes.wake_fd, self._on_results)
        for endpoint in subscribe:
            self._subscribe(endpoint)

    def run(self) -> int:
        """Serve until told to end; returns the exit status."""
        previous = {
            number: signal.signal(number, lambda *_: self.stop())
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            self._do(self._role.start(time.monotonic()))
            while self._status is None:
                self._turn()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._close()
        return self._status

    def stop(self) -> None:
        """Make ``run`` return 0; callable from a signal handler or another thread."""
        if self._status is None:
            self._status = 0
        self._lanes.wake()

    def _turn(self) -> None:
        ready = self._poller.poll(self._timeout_ms())
        now = time.monotonic()
        for socket, _ in ready:
            handler = self._handlers.get(socket)
            if handler is not None:
                handler(now)
        if self._held:
            self._retry_replies()
        for endpoint in list(self._blocked):
            self._flush_peer(endpoint)
        deadline = self._role.next_deadline()
        if deadline is not None and deadline <= now:
            self._do(self._role.on_tick(now))

    def _timeout_ms(self) -> int:
        if self._held or self._blocked:
            return RETRY_REPLIES_MS
        deadline = self._role.next_deadline()
        if deadline is None:
            return -1
        return max(0, int((deadline - time.monotonic()) * 1000) + 1)

    # --- in ---------------------------------------------------------------------------------------

    def _watch(self, socket: Any, handler: Callable[[float], None]) -> None:
        self._poller.register(socket, zmq.POLLIN)
        self._handlers[socket] = handler

    def _on_router(self, now: float) -> None:
        receive, router = self._role.receive, self._router
        for _ in range(MESSAGES_PER_TURN_MAX):
            try:
                parts = frames.receive_frames(router, FRAMES_MAX + 1)
            except zmq.Again:
                return
            route = parts.pop(0).bytes
            try:
                request_id, message, payload = frames.parse(parts)
            except BadMessage as error:
                log.warning("refused a message: %s", error.message)
                self._reply(
                    Sender(route, error.request_id), codec.encode(error.request_id, codec.failed(error)), None
                )
                continue
            self._do(receive(message, Sender(route, request_id), now, payload))

    def _on_peer(self, peer: Peer, now: float) -> None:
        for _ in range(MESSAGES_PER_TURN_MAX):
            try:
                request_id, message, payload = frames.parse(frames.receive_frames(peer.socket, FRAMES_MAX))
            except zmq.Again:
                return
            except BadMessage as error:
                log.warning("%s sent what is not a message: %s", peer.endpoint, error.message)
                continue
            peer.unanswered.discard(request_id)
            self._do(self._role.receive(message, Sender(peer.endpoint, request_id), now, payload))

    def _on_monitor(self, peer: Peer, now: float) -> None:
        lost = peer.on_monitor()
        self._fail(peer.endpoint, lost, now)

    def _subscribe(self, endpoint: str) -> None:
        socket = make_socket(self._context, zmq.SUB)
        socket.connect(endpoint)

        def on_published(now: float) -> None:
            for _ in range(MESSAGES_PER_TURN_MAX):
                try:
                    _, message, _ = frames.parse(frames.receive_frames(socket, FRAMES_MAX))
                except zmq.Again:
                    return
                except BadMessage as error:
                    log.warning("%s published what is not a message: %s", endpoint, error.message)
                    continue
                self._do(self._role.receive(message, Sender("published", 0), now))

        self._watch(socket, on_published)

    def _on_results(self, now: float) -> None:
        for result in self._lanes.results():
            if isinstance(result, Crashed):
                log.critical("lane %s crashed:\n%s", result.lane, result.trace)
                self._status = 70
                return
            self._do(self._role.receive(result, WORKER, now))

    # --- out --------------------------------------------------------------------------------------

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Reply:
                header = codec.encode(effect.to.request_id, effect.message)  # type: ignore[union-attr]
                self._reply(effect.to, header, effect.payload)  # type: ignore[union-attr]
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

    def _reply(self, to: Sender, header: bytes, payload: Any) -> None:
        assert isinstance(to.route, bytes)
        if to.route in self._held or not self._try_reply(to.route, header, payload):
            self._hold(to.route, header, payload)

    def _try_reply(self, route: bytes, header: bytes, payload: Any) -> bool:
        """False when the peer's queue is full.  A reply to a peer that is gone is done with."""
        try:
            frames.send_frames(self._router, route, header, payload)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
        return True

    def _hold(self, route: bytes, header: bytes, payload: Any) -> None:
        size = len(header) + (len(payload) if payload is not None else 0)
        if self._held_bytes + size > REPLIES_HELD_BYTES_MAX:
            log.warning("a peer does not take its replies; one was dropped")
            return
        self._held.setdefault(route, deque()).append((header, payload))
        self._held_bytes += size

    def _retry_replies(self) -> None:
        """A slow peer waits alone: every route has its own queue."""
        for route in list(self._held):
            queue = self._held[route]
            while queue and self._try_reply(route, *queue[0]):
                header, payload = queue.popleft()
                self._held_bytes -= len(header) + (len(payload) if payload is not None else 0)
            if not queue:
                del self._held[route]

    def _send(self, effect: Send) -> None:
        peer = self._peers.get(effect.endpoint)
        if peer is None:
            peer = self._connect(effect.endpoint)
        if not peer.send(effect.request_id, codec.encode(effect.request_id, effect.message), effect.payload):
            self._fail(effect.endpoint, [effect.request_id], time.monotonic())
        elif peer.waiting:
            self._blocked.add(effect.endpoint)

    def _flush_peer(self, endpoint: str) -> None:
        peer = self._peers[endpoint]
        peer.flush()
        if not peer.waiting:
            self._blocked.discard(endpoint)

    def _connect(self, endpoint: str) -> Peer:
        peer = Peer(self._context, endpoint)
        self._peers[endpoint] = peer
        self._watch(peer.socket, lambda now: self._on_peer(peer, now))
        self._watch(peer.monitor, lambda now: self._on_monitor(peer, now))
        return peer

    def _fail(self, endpoint: str, request_ids: list[int], now: float) -> None:
        if not request_ids:
            return
        answer = codec.failed(Unavailable(f"{endpoint} cannot be reached"))
        for request_id in request_ids:
            self._do(self._role.receive(answer, Sender(endpoint, request_id), now))

    def _close(self) -> None:
        self._lanes.close(LANES_CLOSE_S)
        for peer in self._peers.values():
            peer.close()
        self._context.destroy()
