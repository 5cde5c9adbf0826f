"""Every call ends exactly once."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import Unavailable
from fabric.node.calls import Calls
from fabric.node.effects import Effect, Payload, Publish, Send, Sender
from fabric.wire.messages import Failed, Message, Noted, Ping, Pong

HERE, THERE = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"
PONG = Pong("proxy", "p", "1")


class Ends:
    """Records how calls ended."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, Message, Payload | None, float]] = []

    def of(self, name: str):
        def then(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            self.answers.append((name, answer, payload, now))
            return [Publish(Noted())]

        return then


def calls() -> Calls:
    return Calls(random.Random(7))


def test_a_reply_ends_its_call_with_message_payload_and_time() -> None:
    open_calls, ends = calls(), Ends()
    send = open_calls.start(HERE, Ping(1000), 5.0, ends.of("a"))

    effects = open_calls.on_reply(PONG, Sender(HERE, send.request_id), 5.5, b"bytes")

    assert send == Send(HERE, send.request_id, Ping(1000))
    assert effects == [Publish(Noted())]
    assert ends.answers == [("a", PONG, b"bytes", 5.5)]
    assert len(open_calls) == 0
    assert open_calls.next_deadline() is None


def test_a_second_reply_is_dropped() -> None:
    open_calls, ends = calls(), Ends()
    send = open_calls.start(HERE, Ping(1000), 0.0, ends.of("a"))
    open_calls.on_reply(PONG, Sender(HERE, send.request_id), 0.1)

    assert open_calls.on_reply(PONG, Sender(HERE, send.request_id), 0.2) == []
    assert len(ends.answers) == 1


def test_a_reply_from_another_peer_than_was_asked_is_dropped() -> None:
    open_calls, ends = calls(), Ends()
    send = open_calls.start(HERE, Ping(1000), 0.0, ends.of("a"))

    assert open_calls.on_reply(PONG, Sender(THERE, send.request_id), 0.1) == []
    assert ends.answers == []
    assert len(open_calls) == 1


def test_a_call_ends_at_its_deadline_and_a_later_reply_is_dropped() -> None:
    open_calls, ends = calls(), Ends()
    send = open_calls.start(HERE, Ping(1000), 5.0, ends.of("a"))

    assert open_calls.on_tick(5.999) == []
    assert open_calls.next_deadline() == 6.0
    assert open_calls.on_tick(6.0) == [Publish(Noted())]
    assert open_calls.on_reply(PONG, Sender(HERE, send.request_id), 6.1) == []

    ((_, answer, payload, now),) = ends.answers
    assert isinstance(answer, Failed)
    assert (answer.code, answer.retryable, payload, now) == ("DEADLINE", True, None, 6.0)
    assert "Ping" in answer.message
    assert HERE in answer.message


def test_calls_to_a_lost_peer_fail_and_others_go_on() -> None:
    open_calls, ends = calls(), Ends()
    open_calls.start(HERE, Ping(1000), 0.0, ends.of("a"))
    kept = open_calls.start(THERE, Ping(1000), 0.0, ends.of("b"))
    open_calls.start(HERE, Ping(1000), 0.0, ends.of("c"))

    effects = open_calls.fail_where(HERE, Unavailable("gone"), 0.5)

    assert len(effects) == 2
    assert [(name, answer) for name, answer, _, _ in ends.answers] == [
        ("a", Failed("UNAVAILABLE", "gone", True)),
        ("c", Failed("UNAVAILABLE", "gone", True)),
    ]
    open_calls.on_reply(PONG, Sender(THERE, kept.request_id), 0.6)
    assert ends.answers[-1][:2] == ("b", PONG)


def test_a_continuation_may_start_the_next_call() -> None:
    open_calls, ends = calls(), Ends()

    def again(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
        return [open_calls.start(THERE, Ping(1000), now, ends.of("b"))]

    open_calls.start(HERE, Ping(0), 0.0, again)
    (send,) = open_calls.on_tick(0.0)

    assert isinstance(send, Send)
    assert send.endpoint == THERE
    assert len(open_calls) == 1


def test_two_lives_of_a_process_use_different_ids() -> None:
    first = Calls(random.Random(1)).start(HERE, Ping(1), 0.0, Ends().of("a"))
    second = Calls(random.Random(2)).start(HERE, Ping(1), 0.0, Ends().of("a"))

    assert first.request_id != second.request_id
    assert 0 not in (first.request_id, second.request_id)


STEP = st.tuples(
    st.sampled_from(["start", "reply", "tick", "lose"]), st.integers(0, 20), st.integers(0, 3000)
)


@given(st.lists(STEP, max_size=60))
def test_each_call_ends_exactly_once_in_any_order_of_events(steps: list[tuple[str, int, int]]) -> None:
    open_calls, ends, sent, now = calls(), Ends(), [], 0.0
    for what, which, amount_ms in steps:
        now += amount_ms / 10_000
        if what == "start":
            endpoint = (HERE, THERE)[which % 2]
            sent.append(open_calls.start(endpoint, Ping(amount_ms), now, ends.of(str(len(sent)))))
        elif what == "reply" and sent:
            send = sent[which % len(sent)]
            open_calls.on_reply(PONG, Sender(send.endpoint, send.request_id), now)
        elif what == "tick":
            open_calls.on_tick(now)
        elif what == "lose":
            open_calls.fail_where((HERE, THERE)[which % 2], Unavailable(), now)
    assert len(ends.answers) + len(open_calls) == len(sent)

    open_calls.on_tick(now + 10.0)

    assert len(open_calls) == 0
    assert open_calls.next_deadline() is None
    assert sorted(int(name) for name, *_ in ends.answers) == list(range(len(sent)))
