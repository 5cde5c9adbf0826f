"""The blocking client against a real socket that answers as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from fabric.errors import BadMessage, NoWritableGroup, Unavailable
from fabric.node.ask import ask
from fabric.wire import codec
from fabric.wire.messages import Failed, Message, Noted, Ping, Pong

PONG = Pong("master", "master", "1")
Answer = Callable[[int, Message], bytes | None]


class Peer:
    """A ROUTER in a thread."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._stop = threading.Event()
        self.asked: list[tuple[int, Message]] = []
        self.answer: Answer = lambda request_id, _: codec.encode(request_id, PONG)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(20):
                continue
            route, empty, header = self._socket.recv_multipart()
            request_id, message = codec.decode(header)
            self.asked.append((request_id, message))
            answer = self.answer(request_id, message)
            if answer is not None:
                self._socket.send_multipart([route, empty, answer])

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(0)


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def test_the_reply_comes_back_and_the_deadline_went_along(peer: Peer) -> None:
    assert ask(peer.endpoint, Ping(0), 2.5) == PONG
    assert peer.asked[0][1] == Ping(2500)


def test_a_failure_of_the_peer_is_raised_as_its_class(peer: Peer) -> None:
    peer.answer = lambda request_id, _: codec.encode(request_id, Failed("NO_WRITABLE_GROUP", "none", True))
    with pytest.raises(NoWritableGroup, match="none"):
        ask(peer.endpoint, Ping(0), 2.0)


def test_a_refusal_under_request_id_zero_is_raised_too(peer: Peer) -> None:
    peer.answer = lambda *_: codec.encode(0, Failed("BAD_MESSAGE", "not understood", False))
    with pytest.raises(BadMessage, match="not understood"):
        ask(peer.endpoint, Ping(0), 2.0)


def test_the_wrong_kind_of_answer_is_refused(peer: Peer) -> None:
    peer.answer = lambda request_id, _: codec.encode(request_id, Noted())
    with pytest.raises(BadMessage, match="Noted is no answer to Ping"):
        ask(peer.endpoint, Ping(0), 2.0)


def test_an_answer_to_another_question_is_refused(peer: Peer) -> None:
    peer.answer = lambda request_id, _: codec.encode(request_id + 1, PONG)
    with pytest.raises(BadMessage, match="answer"):
        ask(peer.endpoint, Ping(0), 2.0)


def test_what_is_no_message_is_refused(peer: Peer) -> None:
    peer.answer = lambda *_: b"hello"
    with pytest.raises(BadMessage):
        ask(peer.endpoint, Ping(0), 2.0)


def test_silence_is_an_error_in_time_and_the_next_question_works(peer: Peer) -> None:
    peer.answer = lambda *_: None
    before = time.monotonic()
    with pytest.raises(Unavailable, match=r"within 0\.2 s"):
        ask(peer.endpoint, Ping(0), 0.2)
    assert time.monotonic() - before < 1.5

    peer.answer = lambda request_id, _: codec.encode(request_id, PONG)
    assert ask(peer.endpoint, Ping(0), 2.0) == PONG


def test_nobody_there_is_an_error_in_time() -> None:
    with pytest.raises(Unavailable, match="no answer"):
        ask("tcp://127.0.0.1:1", Ping(0), 0.2)


def test_an_endpoint_that_is_none_is_an_error() -> None:
    with pytest.raises(Unavailable, match="cannot be asked"):
        ask("nonsense", Ping(0), 0.2)
