"""The connection to one peer that we ask: a DEALER, its queue in bytes, and what it has not answered.

A connection is CONNECTING until its first handshake, then UP, and DOWN when it broke or was refused.
While CONNECTING requests wait in our own queue; DOWN, they fail at once, so that a caller turns to
another replica instead of waiting for a timeout.  When a connection breaks, every request on it that
has no answer fails too: its outcome is unknown.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from fabric.node import frames
from fabric.node.sockets import descriptor, make_socket

log = logging.getLogger("fabric")

CONNECTING, UP, DOWN = "connecting", "up", "down"
QUEUE_BYTES_MAX = 64 * 1024 * 1024

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED


class Peer:
    """One DEALER and its monitor."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.endpoint = endpoint
        self.state = CONNECTING
        self.socket = make_socket(context, zmq.DEALER)
        self.fd = descriptor(self.socket)
        self.monitor = self.socket.get_monitor_socket(_EVENTS)
        self.unanswered: set[int] = set()
        self._queue: deque[tuple[int, bytes, Any]] = deque()
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
        """Are there requests that the socket could not take yet?"""
        return bool(self._queue)

    def send(self, request_id: int, header: bytes, payload: Any) -> bool:
        """Send or queue a request; False when it cannot be: the peer is down or our queue is full."""
        if self.state == DOWN:
            return False
        if self.state == UP and not self._queue:
            try:
                frames.send_frames(self.socket, None, header, payload)
            except zmq.Again:
                pass
            else:
                self.unanswered.add(request_id)
                return True
        size = len(header) + (len(payload) if payload is not None else 0)
        if self._queued_bytes + size > QUEUE_BYTES_MAX:
            return False
        self._queue.append((request_id, header, payload))
        self._queued_bytes += size
        self.unanswered.add(request_id)
        return True

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        while self._queue and self.state == UP:
            _, header, payload = self._queue[0]
            try:
                frames.send_frames(self.socket, None, header, payload)
            except zmq.Again:
                return
            self._queue.popleft()
            self._queued_bytes -= len(header) + (len(payload) if payload is not None else 0)

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
                self.flush()
            else:
                self.state = DOWN
                lost += self.unanswered
                self.unanswered.clear()
                self._queue.clear()
                self._queued_bytes = 0

    def close(self) -> None:
        """Close both sockets; what was handed to ZeroMQ may still leave within its linger time."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close()
