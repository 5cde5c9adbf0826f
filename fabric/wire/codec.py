"""Message <-> header frame, and the limits that hold for every message.

A message on the wire, after the identity that a ROUTER adds, is two or three frames::

    +-------+  +---------+------------+------------------------------+  +-----------+
    | empty |  | version | request id | MessagePack [kind, field, …] |  | payload … |
    +-------+  +---------+------------+------------------------------+  +-----------+
     0 bytes     1 byte    8 bytes BE                                     <= 4 MiB

Version and request id stand before the MessagePack so that a message which cannot be decoded can
still be answered under its own id.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fabric.errors import BadMessage, BadVersion, FabricError, TooLarge, UnknownKind, error_from_code
from fabric.settings import FRAGMENT_BYTES_MAX, FRAMES_MAX, HEADER_BYTES_MAX
from fabric.wire.messages import WITH_PAYLOAD, AnyMessage, Failed, Message

if TYPE_CHECKING:
    from collections.abc import Sized

PROTOCOL_VERSION = 1

_PREFIX = struct.Struct(">BQ")
assert _PREFIX.size == 9

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)
_kind_decoder = msgspec.msgpack.Decoder(list[Any])

KINDS: dict[int, type[Message]] = {
    kind.__struct_config__.tag: kind
    for kind in AnyMessage.__args__  # type: ignore[attr-defined]
}


def encode(request_id: int, message: Message) -> bytes:
    """The header frame of ``message``."""
    return _PREFIX.pack(PROTOCOL_VERSION, request_id) + _encoder.encode(message)


def request_id_of(frame: bytes) -> int:
    """The request id in a header frame that ``encode`` made."""
    request_id: int = _PREFIX.unpack_from(frame)[1]
    return request_id


def decode(frame: bytes | memoryview) -> tuple[int, Message]:
    """The request id and the typed message of a header frame.

    Raises BadMessage or its kin (BadVersion, UnknownKind, TooLarge); their ``request_id`` is the
    sender's where it could be read, so that the refusal reaches the right caller.
    """
    size = len(frame)
    if size < _PREFIX.size:
        raise BadMessage(f"header frame has {size} bytes, at least {_PREFIX.size} needed")
    version, request_id = _PREFIX.unpack_from(frame)
    if version != PROTOCOL_VERSION:
        raise BadVersion(f"protocol version {version} is not {PROTOCOL_VERSION}", request_id)
    if size > HEADER_BYTES_MAX:
        raise TooLarge(f"header frame has {size} bytes, {HEADER_BYTES_MAX} allowed", request_id)
    body = memoryview(frame)[_PREFIX.size :]
    try:
        return request_id, _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _explain(body, request_id, error) from error


def _explain(body: memoryview, request_id: int, error: Exception) -> BadMessage:
    try:
        fields = _kind_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return BadMessage(f"header is not a MessagePack array: {error}", request_id)
    kind = fields[0] if fields else None
    if not isinstance(kind, int):
        return BadMessage("the first field of a header is its kind, a number", request_id)
    if kind not in KINDS:
        return UnknownKind(f"unknown kind {kind}", request_id)
    return BadMessage(f"{KINDS[kind].__name__}: {error}", request_id)


def check_payload(message: Message, payloads: Sequence[Sized]) -> None:
    """Hold the payload frames of a decoded message against the protocol.

    Raises TooLarge for too many frames or an oversized payload, BadMessage for a payload where none
    belongs or none where one does.
    """
    if len(payloads) > FRAMES_MAX - 2:
        raise TooLarge(f"{len(payloads)} payload frames, 1 allowed")
    if type(message) in WITH_PAYLOAD:
        if not payloads:
            raise BadMessage(f"{type(message).__name__} needs a payload frame")
        if len(payloads[0]) > FRAGMENT_BYTES_MAX:
            raise TooLarge(f"payload has {len(payloads[0])} bytes, {FRAGMENT_BYTES_MAX} allowed")
    elif payloads:
        raise BadMessage(f"{type(message).__name__} has no payload")


def failed(error: FabricError) -> Failed:
    """The message that reports an error."""
    return Failed(error.code, error.message[:2000], error.retryable)


def raised(answer: Failed) -> FabricError:
    """The exception that a received ``Failed`` stands for."""
    return error_from_code(answer.code, answer.message)
