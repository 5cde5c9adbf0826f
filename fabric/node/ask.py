"""One question to a role and its answer, for programs that ask now and then: a blocking REQ client.

A REQ socket that lost its answer takes no further question, so each question has a socket of its own
that is thrown away with it: no state is left behind by a dead peer.  For traffic use the driver.
"""

from __future__ import annotations

import itertools
import time

import msgspec
import zmq

from fabric.errors import BadMessage, Unavailable
from fabric.node.sockets import make_socket
from fabric.wire import codec
from fabric.wire.messages import REPLIES, WITH_PAYLOAD, Failed, Message, Request

_request_ids = itertools.count(1)


def ask(endpoint: str, message: Request, timeout_s: float) -> Message:
    """The reply to ``message``, whose deadline becomes ``timeout_s``.  Only for messages without payload.

    Raises the error that the peer reported; Unavailable when there was no answer in time; BadMessage
    when the answer is none of this protocol.
    """
    assert type(message) not in WITH_PAYLOAD
    assert REPLIES[type(message)] not in WITH_PAYLOAD
    request_id = next(_request_ids)
    message = msgspec.structs.replace(message, deadline_ms=int(timeout_s * 1000))
    socket = make_socket(zmq.Context.instance(), zmq.REQ)
    try:
        socket.connect(endpoint)
        socket.send(codec.encode(request_id, message))
        frames = _receive(socket, endpoint, time.monotonic() + timeout_s, timeout_s)
    except zmq.ZMQError as error:
        raise Unavailable(f"{endpoint} cannot be asked: {error.strerror}") from error
    finally:
        socket.close(linger=0)
    return _answer(frames, request_id, message)


def _receive(socket: zmq.Socket[bytes], endpoint: str, until: float, timeout_s: float) -> list[bytes]:
    left_s = until - time.monotonic()
    if left_s <= 0 or not socket.poll(int(left_s * 1000) + 1):
        raise Unavailable(f"no answer from {endpoint} within {timeout_s:g} s")
    return socket.recv_multipart()


def _answer(frames: list[bytes], request_id: int, message: Request) -> Message:
    answered_id, answer = codec.decode(frames[0])
    codec.check_payload(answer, frames[1:])
    if answered_id not in (request_id, 0):
        raise BadMessage(f"answer {answered_id} to question {request_id}")
    if isinstance(answer, Failed):
        raise codec.raised(answer)
    if type(answer) is not REPLIES[type(message)]:
        raise BadMessage(f"{type(answer).__name__} is no answer to {type(message).__name__}")
    return answer
