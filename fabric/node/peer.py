"""The connection to one peer that we ask: a DEALER, its queue in bytes, and what it has not answered.

A connection is CONNECTING until its first handshake, then UP, and DOWN when it broke or was refused.
While CONNECTING requests wait in our own queue; DOWN, they fail at once, so that a caller turns to
another replica instead of waiting for a timeout.  When a connection breaks, every request on it that
has no answer fails too: its outcome is unknown.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from fabric.node import bundles, frames, shared_memory
from fabric.node.shared_memory import SharedBytes
from fabric.node.sockets import descriptor, make_socket
from fabric.settings import FRAMES_MAX
from fabric.wire import codec
from fabric.wire.messages import MemoryProbed, Message

log = logging.getLogger("fabric")

CONNECTING, UP, DOWN = "connecting", "up", "down"
QUEUE_BYTES_MAX = 64 * 1024 * 1024
PROBE_ID = bundles.ID_MASK
"""The request id of ``ProbeMemory``; no request of a role comes near it."""

Received = tuple[int, Message, Any]

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED


class Peer:
    """One DEALER and its monitor."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, *, shares_memory: bool = False
    ) -> None:
        """``shares_memory``: ask it, when that is of use, whether it reads memory files of this machine."""
        self.endpoint = endpoint
        self.state = CONNECTING
        self.socket = make_socket(context, zmq.DEALER)
        self.fd = descriptor(self.socket)
        self.monitor = self.socket.get_monitor_socket(_EVENTS)
        self.unanswered: set[int] = set()
        self.takes_bundles = False
        """It has sent one."""
        self._shares_memory = shares_memory
        self._may_ask_for_memory = False
        """It was not asked in this connection."""
        self._reads_memory = False
        """It can read memory files of processes on this machine: their names are enough."""
        self._queue: deque[bundles.Unsent] = deque()
        self._queued_bytes = 0
        self.on_monitor()  # a descriptor signals only after its socket was once found empty
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            # Addresses come from other processes: one that means nothing is a peer that is never up.
            log.warning("cannot connect to %r: %s", endpoint, error.strerror)
            self.state = DOWN

    @property
    def waiting(self) -> bool:
        """Are there requests that were not sent yet?"""
        return bool(self._queue)

    def send(self, request_id: int, message: Message, payload: Any) -> bool:
        """Queue a request for ``flush``; False when it cannot be: the peer is down or our queue is full.

        Raises MemoryGone when a payload must be sent that was in memory, and is not any more.
        """
        if self.state == DOWN:
            return False
        if isinstance(payload, SharedBytes) and not self.reads_memory():
            payload = payload.joined()
        header = codec.encode(request_id | bundles.ASKS, message)
        size = _size(header, payload)
        if self._queued_bytes + size > QUEUE_BYTES_MAX:
            return False
        self._queue.append((header, payload))
        self._queued_bytes += size
        self.unanswered.add(request_id)
        return True

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._queue and self.state == UP:
            count, unsent = bundles.take(self._queue) if self.takes_bundles else (1, self._queue[0])
            try:
                frames.send_frames(self.socket, None, *unsent)
            except zmq.Again:
                return
            for _ in range(count):
                self._queued_bytes -= _size(*self._queue.popleft())

    def receive(self) -> list[Received]:
        """One message, or those of one bundle: request id, message, payload; ids are those of ``send``.

        Raises zmq.Again when there is none, BadMessage.
        """
        received: list[Received] = []
        parts = frames.receive_frames(self.socket, FRAMES_MAX)
        for header, payloads in frames.split(parts):
            request_id, message, payload = frames.parse(header, payloads)
            if request_id == PROBE_ID:
                self._reads_memory = isinstance(message, MemoryProbed) and message.is_visible
            else:
                received.append((request_id & bundles.ID_MASK, message, payload))
        if len(parts) == 2 and bundles.is_bundle(parts[1].bytes):
            self.takes_bundles = True
        return received

    def on_monitor(self) -> list[int]:
        """Take in connection events; returns the ids of requests that will get no answer."""
        lost: list[int] = []
        while True:
            try:
                event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))["event"]
            except zmq.Again:
                return lost
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.state = UP
                self._may_ask_for_memory = self._shares_memory
                self.flush()
            else:
                self.state = DOWN
                self.takes_bundles = self._reads_memory = False  # who comes back may be of an earlier version
                lost += self.unanswered
                self.unanswered.clear()
                self._queue.clear()
                self._queued_bytes = 0

    def reads_memory(self) -> bool:
        """Whether payloads in memory files of this machine may be named instead of sent.

        The first call in a connection asks the peer; until it has answered they are sent.
        """
        if self._may_ask_for_memory and self.state == UP:
            self._may_ask_for_memory = False
            question = shared_memory.probe()
            if question is not None:
                with suppress(zmq.Again):
                    frames.send_frames(self.socket, None, codec.encode(PROBE_ID, question), None)
        return self._reads_memory

    def close(self) -> None:
        """Close both sockets; what was handed to ZeroMQ may still leave within its linger time."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close()


def _size(header: bytes, payload: Any) -> int:
    return len(header) + (len(payload) if payload is not None else 0)
