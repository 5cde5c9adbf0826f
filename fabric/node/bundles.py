"""Bundles: several small messages to one peer, as one message of ZeroMQ.

Handing a message to ZeroMQ, and taking one, costs about the same whatever its size, and so does waking up for
it.  So what a process has for one peer at the end of a turn goes together.  Then its answers come
together too, and under load all roles work in step, many messages at a time.

A bundle stands where a header would, and has no payload frame behind it.  It is a mark, then for each
message the lengths of header and payload, the header, and the payload::

    0xFB | header length, payload length + 1 or 0 | header | payload | …
             4 bytes BE     4 bytes BE

Nobody gets a bundle who has not asked for it: a request whose id begins with the 16 bits ``ASKS`` says that
its answer may come in one; a peer that has sent one takes them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from fabric.errors import BadMessage

MARK = 0xFB
ASKS = 0xFAB1 << 48
"""Added to the id of a request; ids are smaller than ``1 << 48``."""
ID_MASK = (1 << 48) - 1
_ASKS_MASK = 0xFFFF << 48

PAYLOAD_BYTES_MAX = 16 * 1024
"""Larger payloads go by themselves, and are not copied."""
BUNDLE_BYTES_MAX = 256 * 1024
MESSAGES_MAX = 128

_LENGTHS = struct.Struct(">II")

Unsent = tuple[bytes, Any]
"""Header, and payload or None."""


def asks(request_id: int) -> bool:
    """Whether the answer to this request may come in a bundle."""
    return request_id & _ASKS_MASK == ASKS


def is_small(payload: Any) -> bool:
    """Whether a message with this payload goes into bundles."""
    return payload is None or len(payload) <= PAYLOAD_BYTES_MAX


def encode(messages: Iterable[Unsent]) -> bytes:
    """The frame that stands for these messages."""
    parts: list[bytes | memoryview] = [bytes((MARK,))]
    for header, payload in messages:
        if payload is None:
            parts += (_LENGTHS.pack(len(header), 0), header)
        else:
            parts += (_LENGTHS.pack(len(header), len(payload) + 1), header, memoryview(payload))
    return b"".join(parts)


def is_bundle(frame: bytes) -> bool:
    """Whether this frame is one, and no header."""
    return frame[:1] == b"\xfb"


def decode(frame: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """The messages of a bundle.  Raises BadMessage where it is not well formed."""
    position, end = 1, len(frame)
    for _ in range(MESSAGES_MAX):
        if position == end:
            return
        if position + _LENGTHS.size > end:
            raise BadMessage("a bundle ends in the middle of a message")
        header_length, payload_length = _LENGTHS.unpack_from(frame, position)
        start = position + _LENGTHS.size
        middle = start + header_length
        position = middle + max(0, payload_length - 1)
        if position > end:
            raise BadMessage("a bundle ends in the middle of a message")
        yield frame[start:middle], frame[middle:position] if payload_length else None
    if position != end:
        raise BadMessage(f"a bundle has more than {MESSAGES_MAX} messages")


def take(queue: Any) -> tuple[int, Unsent]:
    """What goes next from a queue of ``Unsent``: how many of its messages, and as what.

    The queue, which must not be empty, stays as it is.
    """
    first = queue[0]
    if len(queue) == 1 or not is_small(first[1]):
        return 1, first
    messages: list[Unsent] = []
    size = 0
    for header, payload in queue:
        size += len(header) + (len(payload) if payload is not None else 0)
        if len(messages) == MESSAGES_MAX or not is_small(payload) or (messages and size > BUNDLE_BYTES_MAX):
            break
        messages.append((header, payload))
    if len(messages) == 1:
        return 1, first
    return len(messages), (encode(messages), None)
