"""Frames in and out of a ZeroMQ socket, without blocking and with as few copies as can be.

A payload of ``COPY_BELOW_BYTES`` or more stays in ZeroMQ's own buffer and is passed on by
reference; smaller ones are copied, which is cheaper than keeping count.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import zmq

from fabric.errors import BadMessage, TooLarge
from fabric.node import bundles
from fabric.node.effects import Unread
from fabric.node.shared_memory import FILE_BYTES_MAX, SharedBytes
from fabric.settings import FRAMES_MAX
from fabric.wire import codec
from fabric.wire.messages import Message, Request

COPY_BELOW_BYTES = 64 * 1024
CORRELATION_BYTES_MAX = 16
"""libzmq sends 4."""

_SHARED_MARK = b"\xfc"
_SHARED = struct.Struct(">BIB")
"""Mark, length of the payload, length of the file's name; then the name, and the header."""

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def receive_frames(socket: zmq.Socket[bytes], frames_max: int) -> list[zmq.Frame]:
    """One whole message.

    Raises zmq.Again when there is none.  Frames beyond ``frames_max`` are read and thrown away, but
    one of them is kept, so that the caller sees that there were too many.
    """
    receive: Any = socket.recv
    frame = receive(_NOBLOCK, False)
    frames = [frame]
    while frame.more:
        frame = receive(_NOBLOCK, False)
        if len(frames) <= frames_max:
            frames.append(frame)
    return frames


def take_correlation(frames: list[zmq.Frame]) -> bytes:
    """Remove the frame that a correlating REQ socket puts before the delimiter; empty when there is none."""
    if len(frames) < 3 or not 0 < len(frames[0]) <= CORRELATION_BYTES_MAX or len(frames[1]) != 0:
        return b""
    return frames.pop(0).bytes


def split(frames: list[zmq.Frame]) -> Iterator[tuple[bytes, Sequence[Any]]]:
    """Header and payload frames of the one message ``[empty, header, payload]``, or of each in a bundle.

    Raises BadMessage, maybe after some.
    """
    if len(frames) < 2 or len(frames[0]) != 0:
        raise BadMessage("a message is an empty frame, a header frame and maybe a payload frame")
    first = frames[1].bytes
    if len(frames) == 2 and first[:1] == _SHARED_MARK:
        yield _parse_shared(first)
        return
    if len(frames) > 2 or not bundles.is_bundle(first):
        yield first, frames[2:]
        return
    for header, payload in bundles.decode(first):
        yield header, () if payload is None else (payload,)


def parse(header: bytes, payloads: Sequence[Any]) -> tuple[int, Message, Any]:
    """Request id, message and payload.

    Raises BadMessage or its kin, with the sender's request id where it can be read.
    """
    request_id, message = codec.decode(header)
    if len(payloads) > FRAMES_MAX - 2:
        raise TooLarge(f"more than {FRAMES_MAX} frames", request_id)
    try:
        codec.check_payload(message, payloads)
    except BadMessage as error:
        error.request_id = request_id
        raise
    if not payloads:
        return request_id, message, None
    payload = payloads[0]
    if type(payload) is bytes:
        return request_id, message, payload
    if isinstance(payload, Unread) and not isinstance(message, Request):
        raise BadMessage("only requests name their payload: answers are used at once", request_id)
    if isinstance(payload, Unread):
        return request_id, message, payload
    return request_id, message, payload if len(payload) >= COPY_BELOW_BYTES else payload.bytes


def send_frames(
    socket: zmq.Socket[bytes], route: bytes | None, header: bytes, payload: Any, correlation: bytes = b""
) -> None:
    """Send ``[route] [correlation] [empty] [header] [payload]`` at once, what is empty or None left out.

    Of ``SharedBytes`` only the place goes: for peers that can read there.

    Raises zmq.Again when the queue to the peer is full, zmq.ZMQError (EHOSTUNREACH) when a ROUTER's
    peer is gone; then nothing was sent.
    """
    send: Any = socket.send
    if route is not None:
        send(route, _MORE)
        if correlation:
            send(correlation, _MORE)
    send(b"", _MORE)
    if isinstance(payload, SharedBytes):
        send(_encode_shared(header, payload), _NOBLOCK)
        return
    if payload is None:
        send(header, _NOBLOCK)
        return
    send(header, _MORE)
    send(payload, _NOBLOCK, len(payload) < COPY_BELOW_BYTES and not isinstance(payload, zmq.Frame))


def _encode_shared(header: bytes, payload: SharedBytes) -> bytes:
    file = payload.file.encode()
    return _SHARED.pack(_SHARED_MARK[0], len(payload), len(file)) + file + header


def _parse_shared(frame: bytes) -> tuple[bytes, Sequence[Any]]:
    """Header and payload of a frame that says where its payload is.  Raises BadMessage."""
    if len(frame) < _SHARED.size:
        raise BadMessage("a frame ends before it says where its payload is")
    _, length, name_length = _SHARED.unpack_from(frame)
    name = frame[_SHARED.size : _SHARED.size + name_length]
    if name_length > FILE_BYTES_MAX or not name.isascii():
        raise BadMessage("the name of a payload's file is no name")
    return frame[_SHARED.size + name_length :], (SharedBytes(name.decode("ascii"), length),)
