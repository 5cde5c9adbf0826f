"""The exact bytes of every message, both ways, and what happens to all other bytes."""

from __future__ import annotations

import random
import typing

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import BadMessage, BadVersion, FabricError, Internal, NotFound, TooLarge, UnknownKind
from fabric.settings import FRAGMENT_BYTES_MAX, HEADER_BYTES_MAX
from fabric.wire import codec
from fabric.wire import messages as m
from tests.unit.wire.golden import GOLDEN, OLDER

FRAMES = [bytes.fromhex(text) for _, text in GOLDEN]
PREFIX_BYTES = 9


def name_of(value: object) -> str | None:
    return type(value).__name__ if isinstance(value, m.Message) else ""


def plain(value: object) -> object:
    """What a MessagePack library without types sees."""
    if isinstance(value, m.Message | m.Operation):
        return [value.__struct_config__.tag, *(plain(getattr(value, f)) for f in value.__struct_fields__)]
    if isinstance(value, msgspec.Struct):
        return [plain(getattr(value, field)) for field in value.__struct_fields__]
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("message", "text"), GOLDEN, ids=name_of)
def test_a_message_has_exactly_these_bytes(message: m.Message, text: str) -> None:
    assert codec.encode(1, message).hex() == text


@pytest.mark.parametrize(("message", "text"), GOLDEN, ids=name_of)
def test_these_bytes_are_exactly_this_message(message: m.Message, text: str) -> None:
    request_id, decoded = codec.decode(bytes.fromhex(text))

    assert (request_id, decoded) == (1, message)
    assert type(decoded) is type(message)


@pytest.mark.parametrize(("message", "text"), GOLDEN, ids=name_of)
def test_a_plain_library_reads_kind_and_fields(message: m.Message, text: str) -> None:
    frame = bytes.fromhex(text)

    assert frame[:PREFIX_BYTES] == bytes([1]) + (1).to_bytes(8, "big")
    assert msgpack.unpackb(frame[PREFIX_BYTES:]) == plain(message)


@pytest.mark.parametrize(("message", "text"), GOLDEN, ids=name_of)
def test_what_a_plain_library_writes_is_read(message: m.Message, text: str) -> None:
    frame = bytes.fromhex(text)[:PREFIX_BYTES] + msgpack.packb(plain(message))

    assert codec.decode(frame) == (1, message)


def test_the_table_has_every_kind() -> None:
    assert {type(message) for message, _ in GOLDEN} == set(typing.get_args(m.AnyMessage))


def test_the_table_has_every_operation() -> None:
    used = {
        type(step) for message, _ in GOLDEN if isinstance(message, m.Commit) for step in message.operations
    }
    assert used == set(typing.get_args(m.AnyOperation))


def test_kinds_are_distinct_numbers() -> None:
    assert len(codec.KINDS) == len(typing.get_args(m.AnyMessage))
    assert all(isinstance(kind, int) and 1 <= kind < 128 for kind in codec.KINDS)


def test_every_request_has_a_reply_and_no_reply_is_a_request() -> None:
    requests = {kind for kind in typing.get_args(m.AnyMessage) if issubclass(kind, m.Request)}

    assert set(m.REPLIES) == requests
    assert not any(issubclass(reply, m.Request) for reply in m.REPLIES.values())


def test_every_message_is_a_request_a_reply_or_published() -> None:
    published = {m.Topology, m.CatalogChanged}
    others = set(typing.get_args(m.AnyMessage)) - set(m.REPLIES) - set(m.REPLIES.values()) - published
    assert others == {m.Failed}


@pytest.mark.parametrize("request_id", [0, 1, 2**32, 2**64 - 1])
def test_the_request_id_is_carried(request_id: int) -> None:
    assert codec.decode(codec.encode(request_id, m.Noted())) == (request_id, m.Noted())


def test_a_frame_may_be_a_view_of_a_buffer() -> None:
    assert codec.decode(memoryview(bytearray(codec.encode(4, m.Ping(9))))) == (4, m.Ping(9))


# --- growth ---------------------------------------------------------------------------------------


def test_a_field_that_a_newer_peer_added_at_the_end_is_ignored() -> None:
    frame = codec.encode(3, m.Ping(9))[:PREFIX_BYTES] + msgpack.packb([2, 9, "new", {"deep": [1]}])
    assert codec.decode(frame) == (3, m.Ping(9))


def test_a_field_with_a_default_may_be_left_out_by_an_older_peer() -> None:
    older = msgpack.packb([62, 1000, b"0123456789abcdef", "a", 5])
    _, message = codec.decode(codec.encode(3, m.Noted())[:PREFIX_BYTES] + older)
    assert message == m.PutObject(1000, b"0123456789abcdef", "a", 5)


@pytest.mark.parametrize(("message", "text"), OLDER, ids=name_of)
def test_what_older_peers_send_is_read_with_defaults(message: m.Message, text: str) -> None:
    assert codec.decode(bytes.fromhex(text)) == (1, message)
    assert codec.encode(1, message).hex() != text


# --- all other bytes ------------------------------------------------------------------------------


def expect_message_or_refusal(frame: bytes) -> None:
    try:
        _, message = codec.decode(frame)
    except BadMessage:
        return
    assert type(message) in typing.get_args(m.AnyMessage)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"kind-{frame[10]}")
def test_a_frame_cut_anywhere_is_refused(frame: bytes) -> None:
    for length in range(len(frame)):
        with pytest.raises(BadMessage):
            codec.decode(frame[:length])


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"kind-{frame[10]}")
def test_a_frame_with_any_byte_changed_is_a_message_or_refused(frame: bytes) -> None:
    rng = random.Random(frame)
    for position in range(len(frame)):
        for value in {0, 0x7F, 0x80, 0x90, 0xC1, 0xDF, 0xFF, rng.randrange(256)}:
            expect_message_or_refusal(frame[:position] + bytes([value]) + frame[position + 1 :])


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"kind-{frame[10]}")
def test_bytes_behind_a_message_are_refused(frame: bytes) -> None:
    with pytest.raises(BadMessage):
        codec.decode(frame + b"\x00")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    expect_message_or_refusal(body)
    expect_message_or_refusal(FRAMES[0][:PREFIX_BYTES] + body)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=8)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(kind=st.sampled_from(sorted(codec.KINDS)), fields=st.lists(VALUES, max_size=16))
def test_any_fields_of_a_known_kind_are_a_message_or_refused(kind: int, fields: list[object]) -> None:
    expect_message_or_refusal(FRAMES[0][:PREFIX_BYTES] + msgpack.packb([kind, *fields]))


@pytest.mark.parametrize("opening", [b"\x91", b"\xdd\x00\x00\x00\x01", b"\x81\xa1k"])
@pytest.mark.parametrize("place", [b"\x92\x02", b"\x93\x02\x01", b"\x92\x63", b""], ids=repr)
def test_deep_nesting_is_refused(place: bytes, opening: bytes) -> None:
    """As a field, as a field that would be ignored, in an unknown kind, and all by itself."""
    body = place + opening * 100_000 + b"\xc0"
    with pytest.raises(BadMessage):
        codec.decode(FRAMES[0][:PREFIX_BYTES] + body)


@pytest.mark.parametrize(
    "bomb", [b"\xdd\xff\xff\xff\xff", b"\x92\x02\xdf\xff\xff\xff\xff", b"\x92\x02\xc6\xff\xff\xff\xff"]
)
def test_a_length_that_promises_gigabytes_is_refused(bomb: bytes) -> None:
    with pytest.raises(BadMessage):
        codec.decode(FRAMES[0][:PREFIX_BYTES] + bomb)


def refusal(frame: bytes) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        codec.decode(frame)
    return caught.value


def with_body(request_id: int, value: object) -> bytes:
    return codec.encode(request_id, m.Noted())[:PREFIX_BYTES] + msgpack.packb(value)


REFUSED = [
    (b"", BadMessage, 0),
    (b"\x01\x00", BadMessage, 0),
    (b"\x02" + (7).to_bytes(8, "big") + b"\x92\x02\x01", BadVersion, 7),
    (with_body(7, [99]), UnknownKind, 7),
    (with_body(7, [-1]), UnknownKind, 7),
    (with_body(7, []), BadMessage, 7),
    (with_body(7, ["Ping", 1]), BadMessage, 7),
    (with_body(7, {"kind": 2}), BadMessage, 7),
    (with_body(7, [2]), BadMessage, 7),
    (with_body(7, [2, -1]), BadMessage, 7),
    (with_body(7, [2, "1"]), BadMessage, 7),
    (with_body(7, [43]), BadMessage, 7),
    (with_body(7, [42, 1, ""]), BadMessage, 7),
    (with_body(7, [42, 1, "x" * 1025]), BadMessage, 7),
    (with_body(7, [40, 1, b"short", [[4, "x", -1, False]]]), BadMessage, 7),
    (with_body(7, [40, 1, b"0123456789abcdef", []]), BadMessage, 7),
    (with_body(7, [40, 1, b"0123456789abcdef", [[9, "x"]]]), BadMessage, 7),
    (with_body(7, [40, 1, b"0123456789abcdef", [[4, "x"]] * 257]), BadMessage, 7),
    (with_body(7, [47, 0, [[1, 2, 3, 4]] * 129, False]), BadMessage, 7),
    (with_body(7, [48, 1, "", "", "", 1001]), BadMessage, 7),
    (with_body(7, [2, 1, b"x" * HEADER_BYTES_MAX]), TooLarge, 7),
]


@pytest.mark.parametrize(("frame", "error", "request_id"), REFUSED)
def test_a_refusal_says_what_is_wrong_and_for_whom(
    frame: bytes, error: type[BadMessage], request_id: int
) -> None:
    caught = refusal(frame)

    assert type(caught) is error
    assert caught.request_id == request_id
    assert caught.message


# --- payloads -------------------------------------------------------------------------------------


def test_a_payload_stands_where_it_belongs_and_nowhere_else() -> None:
    codec.check_payload(m.PutFragment(1, 2), [b""])
    codec.check_payload(m.PutFragment(1, 2), [bytes(FRAGMENT_BYTES_MAX)])
    codec.check_payload(m.Ping(1), [])
    with pytest.raises(TooLarge):
        codec.check_payload(m.PutFragment(1, 2), [bytes(FRAGMENT_BYTES_MAX + 1)])
    with pytest.raises(TooLarge):
        codec.check_payload(m.PutFragment(1, 2), [b"", b""])
    with pytest.raises(BadMessage):
        codec.check_payload(m.PutFragment(1, 2), [])
    with pytest.raises(BadMessage):
        codec.check_payload(m.Ping(1), [b""])


# --- errors across the wire -----------------------------------------------------------------------


def every_error() -> list[type[FabricError]]:
    found, todo = [], [FabricError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += [child for child in kind.__subclasses__() if child.__module__ == "fabric.errors"]
    return [kind for kind in found if kind is not FabricError]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_an_error_comes_out_as_it_went_in(kind: type[FabricError]) -> None:
    message = codec.failed(kind("why"))
    _, received = codec.decode(codec.encode(1, message))
    assert isinstance(received, m.Failed)
    error = codec.raised(received)

    assert (type(error), error.message, received.retryable) == (kind, "why", kind.retryable)


def test_codes_are_distinct() -> None:
    codes = [kind.code for kind in every_error()]
    assert len(codes) == len(set(codes))


def test_an_error_of_a_newer_peer_is_internal_and_keeps_its_code_in_the_text() -> None:
    error = codec.raised(m.Failed("FROM_THE_FUTURE", "well", True))

    assert type(error) is Internal
    assert error.message == "FROM_THE_FUTURE: well"


def test_a_missing_path_is_a_file_not_found_error() -> None:
    assert isinstance(codec.raised(m.Failed("NOT_FOUND", "a", False)), FileNotFoundError)
    assert isinstance(NotFound("a"), FabricError)
