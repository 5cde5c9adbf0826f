"""One factory for every ZeroMQ socket, because ZeroMQ's defaults are wrong for servers.

Left alone, a socket lingers for ever at close, notices a dead TCP connection never, queues without
limit for a peer that was never there, takes frames of any size, and a ROUTER drops what it cannot
deliver without a word.
"""

from __future__ import annotations

from typing import Any

import zmq

from fabric.settings import FRAGMENT_BYTES_MAX

LINGER_MS = 500
HEARTBEAT_INTERVAL_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 6_000
RECONNECT_MS = 50
RECONNECT_MS_MAX = 1_000
HANDSHAKE_MS = 5_000
CONNECT_MS = 2_000
"""A host that does not answer counts as down after this, not after the system's two minutes."""
FRAME_BYTES_MAX = FRAGMENT_BYTES_MAX + 64 * 1024
MESSAGES_QUEUED_MAX = 64
"""Per peer and direction.  ZeroMQ counts messages, not bytes; byte limits are the roles' own."""
CONNECTIONS_BACKLOG = 512
KERNEL_BUFFER_BYTES = 256 * 1024
"""Of a connection, each way.  ZeroMQ hands over as much at once as fits, and what shares its thread waits."""
IO_THREADS = 2
_ANSWERING, _ASKING = 1, 2
"""Bits of those threads."""


def make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The context of a role: one thread for those who ask it, one for those whom it asks.

    So a small question need not wait while fragments go out to three replicas.
    """
    return zmq.Context(IO_THREADS)


def make_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    """A socket of this kind with the options that every socket of the fabric has."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.SNDHWM, MESSAGES_QUEUED_MAX)
    socket.setsockopt(zmq.RCVHWM, MESSAGES_QUEUED_MAX)
    socket.setsockopt(zmq.BACKLOG, CONNECTIONS_BACKLOG)
    socket.setsockopt(zmq.SNDBUF, KERNEL_BUFFER_BYTES)
    socket.setsockopt(zmq.RCVBUF, KERNEL_BUFFER_BYTES)
    if context.get(zmq.IO_THREADS) == IO_THREADS:  # a role's; a driver's has one thread, for all
        socket.setsockopt(zmq.AFFINITY, _ASKING if kind == zmq.DEALER else _ANSWERING)
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    if kind == zmq.DEALER:
        # Nothing is queued for a peer that is not connected: the shell keeps that queue, in bytes.
        socket.setsockopt(zmq.IMMEDIATE, 1)
    if kind == zmq.SUB:
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    return socket


# Plain numbers: looking the enumerations up takes a third of such a call.
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


def descriptor(socket: zmq.Socket[bytes]) -> int:
    """The file descriptor that signals (edge-triggered) that the socket's state changed."""
    value = socket.getsockopt(zmq.FD)
    assert isinstance(value, int)
    return value


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Is there a whole message to receive?"""
    value: Any = socket.getsockopt(_EVENTS)
    return bool(value & _POLLIN)
