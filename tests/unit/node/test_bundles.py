"""Bundles: what goes in comes out, nobody gets one unasked, and bad ones do no harm."""

from __future__ import annotations

import random
import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import BadMessage
from fabric.node import bundles
from fabric.node.effects import Effect, Send, Sender
from fabric.node.zmq_loop import REPLIES_TOGETHER
from fabric.wire import codec
from fabric.wire.messages import Failed, FragmentData, Message, Ping, Pong, PutFragment, ReportFailure
from tests.unit.node.echo import WAIT_MS, Echo, RawPeer, running

MESSAGES = st.tuples(st.binary(max_size=40), st.one_of(st.none(), st.binary(max_size=40)))


@given(st.lists(MESSAGES, max_size=bundles.MESSAGES_MAX))
def test_what_goes_in_comes_out(messages: list[tuple[bytes, bytes | None]]) -> None:
    frame = bundles.encode(messages)
    assert bundles.is_bundle(frame)
    assert list(bundles.decode(frame)) == messages


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_a_part_of_one_is_refused_behind_its_whole_messages(
    messages: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    frame = bundles.encode(messages)
    part = frame[: data.draw(st.integers(1, len(frame) - 1))]
    found = []
    try:
        for message in bundles.decode(part):
            found.append(message)
    except BadMessage:
        pass
    else:
        assert bundles.encode(found) == part
    assert found == messages[: len(found)]


def test_too_many_are_refused() -> None:
    frame = bundles.encode([(b"h", None)] * (bundles.MESSAGES_MAX + 1))
    with pytest.raises(BadMessage):
        list(bundles.decode(frame))


def test_a_header_is_no_bundle() -> None:
    assert not bundles.is_bundle(codec.encode(1, Ping(1)))
    assert not bundles.is_bundle(b"")


def test_what_goes_together_is_bounded_and_in_order() -> None:
    large = b"x" * (bundles.PAYLOAD_BYTES_MAX + 1)
    half = b"y" * bundles.PAYLOAD_BYTES_MAX
    assert bundles.take(deque([(b"a", large), (b"b", None)])) == (1, (b"a", large))
    count, (frame, payload) = bundles.take(deque([(b"a", None), (b"b", b""), (b"c", large), (b"d", None)]))
    assert (count, list(bundles.decode(frame)), payload) == (2, [(b"a", None), (b"b", b"")], None)
    count, (frame, _) = bundles.take(deque([(b"a", half)] * 100))
    assert count == bundles.BUNDLE_BYTES_MAX // (bundles.PAYLOAD_BYTES_MAX + 1)
    assert len(frame) <= bundles.BUNDLE_BYTES_MAX + count * 8 + 1
    assert bundles.take(deque([(b"a", None)] * 1000))[0] == bundles.MESSAGES_MAX


# --- on a loop --------------------------------------------------------------------------------------


def test_requests_in_a_bundle_are_all_answered_alone_to_who_does_not_ask_for_bundles() -> None:
    with running() as it, RawPeer(it.endpoint) as peer:
        frame = bundles.encode(
            [(codec.encode(1, Ping(1000)), None), (codec.encode(2, PutFragment(1000, 9)), b"data")]
        )
        peer.socket.send_multipart([b"", frame])
        assert peer.receive() == (1, Pong("echo", "e", "1"), [])
        assert peer.receive() == (2, FragmentData(0, 0, 9), [b"data"])


def test_who_asks_for_bundles_gets_them_but_not_for_large_payloads() -> None:
    large = random.Random(1).randbytes(bundles.PAYLOAD_BYTES_MAX + 1)
    count = 2 * REPLIES_TOGETHER + 2
    with running() as it, RawPeer(it.endpoint) as peer:
        requests = [(codec.encode(number | bundles.ASKS, Ping(1000)), None) for number in range(count)]
        peer.socket.send_multipart([b"", bundles.encode(requests)])
        parts = [_bundle(peer) for _ in range(3)]
        assert [len(part) for part in parts] == [REPLIES_TOGETHER, REPLIES_TOGETHER, 2]
        assert [message for part in parts for message in part] == [
            (number | bundles.ASKS, Pong("echo", "e", "1")) for number in range(count)
        ]
        peer.send(count | bundles.ASKS, PutFragment(1000, 9), large)
        assert peer.receive() == (count | bundles.ASKS, FragmentData(0, 0, 9), [large])


def test_the_first_answers_to_a_bundle_go_ahead_while_the_rest_is_worked_on() -> None:
    arrived = threading.Event()

    class Slow(Echo):
        def echo(self, message: object, sender: Sender, payload: object) -> list[Effect]:
            if isinstance(message, PutFragment):
                assert arrived.wait(WAIT_MS / 1000)
            return super().echo(message, sender, payload)

    with running(Slow()) as it, RawPeer(it.endpoint) as peer:
        first = [
            (codec.encode(number | bundles.ASKS, Ping(1000)), None) for number in range(REPLIES_TOGETHER)
        ]
        last = codec.encode(99 | bundles.ASKS, PutFragment(1000, 9)), b"data"
        peer.socket.send_multipart([b"", bundles.encode([*first, last])])
        assert len(_bundle(peer)) == REPLIES_TOGETHER
        arrived.set()
        assert _bundle(peer) == [(99 | bundles.ASKS, FragmentData(0, 0, 9))]


def _bundle(peer: RawPeer) -> list[tuple[int, Message]]:
    """Ids and messages of the next one."""
    empty, frame = peer.socket.recv_multipart()
    assert empty == b""
    return [codec.decode(header) for header, _ in bundles.decode(frame)]


def test_a_bad_message_in_a_bundle_is_refused_and_the_others_served() -> None:
    with running() as it, RawPeer(it.endpoint) as peer:
        bad = codec.encode(2, Ping(1000))[:-1]
        entries = [(codec.encode(1, Ping(1000)), None), (bad, None), (codec.encode(3, Ping(1000)), b"data")]
        peer.socket.send_multipart([b"", bundles.encode([*entries, (codec.encode(4, Ping(1000)), None)])])
        answers = [peer.receive() for _ in range(4)]
        assert [number for number, _, _ in answers] == [1, 2, 3, 4]
        assert [type(answer) for _, answer, _ in answers] == [Pong, Failed, Failed, Pong]


def test_ten_thousand_mutated_bundles_leave_it_alive() -> None:
    rng = random.Random(3)
    good = bundles.encode(
        [(codec.encode(1, Ping(1000)), None), (codec.encode(2, PutFragment(1000, 9)), b"data")]
    )
    with running() as it, RawPeer(it.endpoint, SNDHWM=0, RCVHWM=0) as peer:
        for _ in range(10_000):
            frame = bytearray(good)
            for _ in range(rng.randint(1, 4)):
                frame[rng.randrange(1, len(frame))] = rng.randrange(256)
            peer.socket.send_multipart([b"", bytes(frame[: rng.randint(1, len(frame))])])
        peer.send(999, Ping(1000))
        while peer.receive()[0] != 999:
            pass


class Asker(Echo):
    """For one ``ReportFailure``, asks its endpoint ten times; counts how the questions arrive elsewhere."""

    def echo(self, message: object, sender: Sender, payload: object) -> list[Effect]:
        if isinstance(message, ReportFailure):
            first, self.next_id = self.next_id, self.next_id + 10
            self.asked |= {first + n: sender for n in range(10)}
            return [Send(message.detail, first + n, PutFragment(1000, n), b"%d" % n) for n in range(10)]
        return super().echo(message, sender, payload)


def test_requests_of_one_turn_go_together_once_the_peer_has_shown_that_it_knows_bundles() -> None:
    with running() as answering, running(Asker()) as asking, RawPeer(asking.endpoint) as peer:
        sizes: list[int] = []
        decode = bundles.decode

        def counting(frame: bytes):  # type: ignore[no-untyped-def]
            messages = list(decode(frame))
            sizes.append(len(messages))
            return iter(messages)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bundles, "decode", counting)
            for number in (1, 2):
                peer.send(number, ReportFailure(1000, "p", "s", 1, 1, "X", answering.endpoint))
                found = {peer.receive()[1] for _ in range(10)}
                assert found == {FragmentData(0, 0, n) for n in range(10)}
        assert len(answering.role.received) == 20
        assert sizes.count(10) == 1, "ten questions at once in the second round"
        assert sizes[-2:] == [REPLIES_TOGETHER, 10 - REPLIES_TOGETHER], "and their answers"


def test_a_peer_that_knows_no_bundles_never_gets_one() -> None:
    with RawPeer.listening() as (old, endpoint), running(Asker()) as asking, RawPeer(asking.endpoint) as peer:
        for number in (1, 2):
            peer.send(number, ReportFailure(1000, "p", "s", 1, 1, "X", endpoint))
            for _ in range(10):
                route, empty, header, payload = old.recv_multipart()
                request_id, message = codec.decode(header)
                assert isinstance(message, PutFragment)
                old.send_multipart(
                    [route, empty, codec.encode(request_id, FragmentData(0, 0, message.checksum)), payload]
                )
            assert {peer.receive()[1] for _ in range(10)} == {FragmentData(0, 0, n) for n in range(10)}
