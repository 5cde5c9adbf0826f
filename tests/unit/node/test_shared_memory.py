"""Payloads in memory files: the right bytes or MEMORY_GONE, and nothing else is ever opened."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from fabric.errors import BadMessage, MemoryGone
from fabric.node import bundles, frames
from fabric.node.effects import Effect, Reply, Send, Sender
from fabric.node.host import host_id
from fabric.node.peer import PROBE_ID, Peer
from fabric.node.pieces import PIECE_BYTES
from fabric.node.shared_memory import FILE_BYTES_MAX, SharedBytes, is_visible, make_file, probe
from fabric.settings import FRAGMENT_BYTES_MAX
from fabric.wire import codec
from fabric.wire.messages import (
    Failed,
    FragmentData,
    MemoryProbed,
    Ping,
    Pong,
    ProbeMemory,
    PutFragment,
    ReportFailure,
)
from tests.unit.node.echo import WAIT_MS, RawPeer, looping

DATA = os.urandom(100_000)

HOLDER = """
import os, sys
from fabric.node.shared_memory import make_file
descriptor, file = make_file()
os.write(descriptor, b"from another process")
print(file, flush=True)
sys.stdin.read()
"""


@contextmanager
def in_memory(data: bytes = DATA) -> Iterator[str]:
    descriptor, file = make_file()
    os.pwrite(descriptor, data, 0)
    try:
        yield file
    finally:
        os.close(descriptor)


# --- reading ------------------------------------------------------------------------------------------


def test_the_bytes_are_those_of_the_first_look() -> None:
    with in_memory() as file:
        payload = SharedBytes(file, 5000)
        assert len(payload) == 5000
        assert payload.joined() == DATA[:5000]
    assert payload.joined() == DATA[:5000]  # copied: whoever wrote them may be gone by now
    with pytest.raises(MemoryGone):
        SharedBytes(file, 5000).joined()


def test_it_comes_in_pieces_and_leaves_nothing_open() -> None:
    data = os.urandom(2 * PIECE_BYTES + 5)
    with in_memory(data) as file:
        before = len(os.listdir("/proc/self/fd"))
        pieces = list(SharedBytes(file, len(data)).load())
        assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 5]
        assert b"".join(pieces) == data
        some = SharedBytes(file, len(data)).load()
        assert next(some) == pieces[0]
        some.close()  # type: ignore[attr-defined]
        assert len(os.listdir("/proc/self/fd")) == before
        with pytest.raises(MemoryGone):
            list(SharedBytes(file, len(data) + 1).load())
        assert len(os.listdir("/proc/self/fd")) == before


def test_fewer_bytes_than_were_promised_are_none() -> None:
    with in_memory(b"short") as file, pytest.raises(MemoryGone, match="5 bytes, and 6 were promised"):
        SharedBytes(file, 6).joined()


def test_another_process_is_read_until_it_dies() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        file = holder.stdout.readline().strip()
        assert SharedBytes(file, 20).joined() == b"from another process"
        holder.kill()
        holder.wait()
        with pytest.raises(MemoryGone):
            SharedBytes(file, 20).joined()


def descriptor_of(kind: str) -> int:
    if kind == "file":
        return os.open(Path(__file__), os.O_RDONLY)
    if kind == "deleted file":
        with tempfile.TemporaryFile() as temporary:
            return os.dup(temporary.fileno())
    if kind == "other memory":
        return os.memfd_create("speedy-fabric (deleted)")
    return os.pipe()[0]


@pytest.mark.parametrize("kind", ["file", "deleted file", "other memory", "pipe"])
def test_nothing_but_memory_files_is_opened(kind: str) -> None:
    descriptor = descriptor_of(kind)
    name = f"/proc/{os.getpid()}/fd/{descriptor}"
    try:
        assert not is_visible(ProbeMemory(1, host_id(), name))
        with pytest.raises(MemoryGone):
            SharedBytes(name, 1).joined()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "shape",
    [
        "/proc/self/fd/{}",
        "/proc/{{}}/fd/{}x",
        "/proc/{{}}/fd/{}/",
        "/proc/{{}}/fd/./{}",
        "{}",
        "",
        "/proc/{{}}/fd/{}\n",
    ],
)
def test_only_one_kind_of_name_is_followed(shape: str) -> None:
    with in_memory() as file:
        process, number = file.split("/")[2], file.split("/")[4]
        name = shape.format(number).format(process)
        assert not is_visible(ProbeMemory(1, host_id(), name))
        with pytest.raises(MemoryGone):
            SharedBytes(name, 1).joined()


def test_memory_is_visible_on_this_machine_only() -> None:
    question = probe()
    assert question is not None
    assert is_visible(question)
    assert not is_visible(ProbeMemory(1, "another boot", question.file))
    assert not is_visible(ProbeMemory(1, "", question.file))


# --- frames -------------------------------------------------------------------------------------------


class _Socket:
    """Takes what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, part: Any, *_: Any) -> None:
        self.sent.append(part)


def sent(payload: SharedBytes, header: bytes) -> list[zmq.Frame]:
    socket = _Socket()
    frames.send_frames(socket, None, header, payload)  # type: ignore[arg-type]
    return [zmq.Frame(part) for part in socket.sent]


def test_the_name_travels_in_place_of_the_bytes() -> None:
    header = codec.encode(77, PutFragment(1000, 5))
    parts = sent(SharedBytes("/proc/1/fd/2", FRAGMENT_BYTES_MAX), header)
    assert sum(map(len, parts)) < 100
    ((back, payloads),) = frames.split(parts)
    request_id, message, payload = frames.parse(back, payloads)
    assert (request_id, message) == (77, PutFragment(1000, 5))
    assert (payload.file, len(payload)) == ("/proc/1/fd/2", FRAGMENT_BYTES_MAX)


def test_a_frame_that_is_cut_anywhere_is_refused() -> None:
    whole = sent(SharedBytes("/proc/1/fd/2", 9), codec.encode(77, PutFragment(1000, 5)))[1].bytes
    for length in range(1, len(whole)):
        with pytest.raises(BadMessage):
            for header, payloads in frames.split([zmq.Frame(b""), zmq.Frame(whole[:length])]):
                frames.parse(header, payloads)


@pytest.mark.parametrize("name", [b"x" * (FILE_BYTES_MAX + 1), "/proc/ü".encode()])
def test_a_name_that_is_none_is_refused(name: bytes) -> None:
    frame = b"\xfc" + (9).to_bytes(4, "big") + bytes((len(name),)) + name + codec.encode(1, PutFragment(1, 5))
    with pytest.raises(BadMessage):
        list(frames.split([zmq.Frame(b""), zmq.Frame(frame)]))


def test_a_bundle_holds_no_such_frame() -> None:
    inner = sent(SharedBytes("/proc/1/fd/2", 9), codec.encode(77, PutFragment(1000, 5)))[1].bytes
    bundle = bundles.encode([(inner, None)])
    ((header, payloads),) = frames.split([zmq.Frame(b""), zmq.Frame(bundle)])
    with pytest.raises(BadMessage):
        frames.parse(header, payloads)


# --- loops and peers ----------------------------------------------------------------------------------


class Passing:
    """Passes what is put to ``then`` and answers with its answer; without ``then`` it reads the payload.

    ``kinds``: how payloads came.
    """

    def __init__(self, then: str = "") -> None:
        self.then = then
        self.kinds: list[type] = []
        self.asked: dict[int, Sender] = {}

    def start(self, now: float) -> list[Effect]:
        return []

    on_tick = on_turn_end = start

    def next_deadline(self) -> float | None:
        return None

    def receive(self, message: object, sender: Sender, now: float, payload: Any = None) -> list[Effect]:
        if isinstance(sender.route, str):
            return [Reply(self.asked.pop(sender.request_id), message)]  # type: ignore[arg-type]
        if not isinstance(message, PutFragment):
            return [Reply(sender, Pong("passing", "p", ""))]
        self.kinds.append(type(payload))
        if self.then:
            self.asked[len(self.kinds)] = sender
            return [Send(self.then, len(self.kinds), message, payload)]
        try:
            data = payload.joined() if isinstance(payload, SharedBytes) else bytes(memoryview(payload))
        except MemoryGone as error:
            return [Reply(sender, codec.failed(error))]
        return [Reply(sender, Pong("passing", str(hash(data)), ""))]


class Asking:
    """A ``Peer`` whose answers are waited for."""

    def __init__(self, endpoint: str, **options: Any) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.peer = Peer(self.context, endpoint, **options)
        self.next_id = 1
        self.until(lambda: self.peer.state == "up")

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()
        self.context.destroy(0)

    def until(self, condition: Callable[[], bool]) -> list[Any]:
        received: list[Any] = []
        poller = zmq.Poller()
        poller.register(self.peer.socket, zmq.POLLIN)
        poller.register(self.peer.monitor, zmq.POLLIN)
        give_up_at = time.monotonic() + WAIT_MS / 1000
        while not (condition() or received):
            assert time.monotonic() < give_up_at
            poller.poll(100)
            self.peer.on_monitor()
            try:
                received += self.peer.receive()
            except zmq.Again:
                continue
        return received

    def put(self, payload: Any) -> Any:
        self.next_id += 1
        assert self.peer.send(self.next_id, PutFragment(1000, 5), payload)
        self.peer.flush()
        ((request_id, answer, _),) = self.until(lambda: False)
        assert request_id == self.next_id
        return answer

    def learn(self) -> bool:
        """Whether it reads memory; asks, and waits for the answer."""
        self.peer.reads_memory()
        self.peer.send(99, Ping(1000), None)
        self.peer.flush()
        self.until(lambda: False)  # answers come in order
        return self.peer.reads_memory()


EXPECTED = Pong("passing", str(hash(DATA)), "")


def test_a_peer_that_can_read_memory_is_told_the_place_and_passes_it_on() -> None:
    far, middle = Passing(), Passing()
    with looping(far, shares_memory=True) as middle.then, looping(middle, shares_memory=True) as endpoint:  # noqa: SIM117
        with Asking(endpoint, shares_memory=True) as asking, in_memory() as file:
            answers = [asking.put(SharedBytes(file, len(DATA))) for _ in range(2)]
            assert asking.learn()
            answers += [asking.put(SharedBytes(file, len(DATA))) for _ in range(3)]
    assert answers == [EXPECTED] * 5
    assert middle.kinds[2:] == [SharedBytes] * 3
    assert far.kinds[0] is not SharedBytes
    assert far.kinds[-1] is SharedBytes


@pytest.mark.parametrize("side", ["the one that reads", "the one that asks"])
def test_where_memory_is_not_shared_bytes_are_sent(side: str) -> None:
    role = Passing()
    with (
        looping(role, shares_memory=side == "the one that asks") as endpoint,
        Asking(endpoint, shares_memory=side == "the one that reads") as asking,
        in_memory() as file,
    ):
        assert not asking.learn()
        assert asking.put(SharedBytes(file, len(DATA))) == EXPECTED
    assert SharedBytes not in role.kinds


def test_a_proxy_loads_the_bytes_once_for_replicas_that_are_far() -> None:
    far, middle = Passing(), Passing()
    with looping(far) as middle.then, looping(middle, shares_memory=True) as endpoint:  # noqa: SIM117
        with Asking(endpoint, shares_memory=True) as asking, in_memory() as file:
            assert asking.learn()
            assert asking.put(SharedBytes(file, len(DATA))) == EXPECTED
    assert middle.kinds == [SharedBytes]
    assert SharedBytes not in far.kinds


def test_memory_that_is_gone_is_told_to_the_role_that_wanted_to_send_it() -> None:
    far, middle = Passing(), Passing()
    with looping(far) as middle.then, looping(middle, shares_memory=True) as endpoint:  # noqa: SIM117
        with Asking(endpoint, shares_memory=True) as asking:
            assert asking.learn()
            with in_memory() as file:
                pass
            answer = asking.put(SharedBytes(file, len(DATA)))
            assert isinstance(answer, Failed)
            assert answer.code == "MEMORY_GONE"
            assert asking.put(DATA) == EXPECTED
    assert len(far.kinds) == 1


def test_an_earlier_version_is_sent_bytes() -> None:
    """It refuses the question as it refuses whatever it does not know."""
    with RawPeer.listening() as (router, endpoint), Asking(endpoint, shares_memory=True) as asking:
        assert not asking.peer.reads_memory()
        route, _, header = router.recv_multipart()
        request_id, question = codec.decode(header)
        assert isinstance(question, ProbeMemory)
        assert request_id == PROBE_ID
        refusal = codec.encode(request_id, Failed("UNKNOWN_KIND", "unknown kind 7", False))
        router.send_multipart([route, b"", refusal])
        router.send_multipart([route, b"", codec.encode(5, Pong("old", "", ""))])
        assert [answer for _, answer, _ in asking.until(lambda: False)] == [Pong("old", "", "")]
        assert not asking.peer.reads_memory()
        with in_memory() as file:
            asking.peer.send(2, PutFragment(1000, 5), SharedBytes(file, len(DATA)))
            asking.peer.flush()
        assert router.recv_multipart()[3] == DATA  # and it was asked once


def test_a_new_connection_is_asked_anew() -> None:
    with looping(Passing(), shares_memory=True) as endpoint:
        asking = Asking(endpoint, shares_memory=True)
        assert asking.learn()
    with asking:
        asking.until(lambda: asking.peer.state == "down")
        assert not asking.peer.reads_memory()
        role = Passing()
        with looping(role, listen=endpoint), in_memory() as file:
            asking.until(lambda: asking.peer.state == "up")
            assert not asking.learn()
            assert asking.put(SharedBytes(file, len(DATA))) == EXPECTED
    assert SharedBytes not in role.kinds


def test_a_loop_that_shares_nothing_reads_nothing() -> None:
    role = Passing()
    header = codec.encode(3, PutFragment(1000, 5))
    with looping(role) as endpoint, RawPeer(endpoint) as peer, in_memory() as file:
        peer.socket.send_multipart([part.bytes for part in sent(SharedBytes(file, 5), header)])
        request_id, answer, _ = peer.receive()
    assert (request_id, answer.code) == (3, "MEMORY_GONE")  # type: ignore[attr-defined]
    assert role.kinds == []


@pytest.mark.parametrize(
    ("message", "length", "code"),
    [
        (PutFragment(1000, 5), FRAGMENT_BYTES_MAX + 1, "TOO_LARGE"),
        (ReportFailure(1000, "p", "s", 1, 1, "X", ""), 5, "BAD_MESSAGE"),
    ],
    ids=["too long", "where none belongs"],
)
def test_its_length_and_place_are_checked_as_of_bytes(message: Any, length: int, code: str) -> None:
    role = Passing()
    with looping(role, shares_memory=True) as endpoint, RawPeer(endpoint) as peer, in_memory() as file:
        parts = sent(SharedBytes(file, length), codec.encode(3, message))
        peer.socket.send_multipart([part.bytes for part in parts])
        request_id, answer, _ = peer.receive()
        assert (request_id, answer.code) == (3, code)  # type: ignore[attr-defined]
        assert peer.ask(4, Ping(1000)) == Pong("passing", "p", "")


def test_any_role_answers_the_question() -> None:
    question = probe()
    assert question is not None
    for shares in (True, False):
        with looping(Passing(), shares_memory=shares) as endpoint, RawPeer(endpoint) as peer:
            assert peer.ask(8, question) == MemoryProbed(shares)


def test_an_answer_brings_its_bytes() -> None:
    """Whoever asked uses them at once, and cannot go elsewhere for them."""
    parts = sent(SharedBytes("/proc/1/fd/2", 9), codec.encode(1, FragmentData(1, 0, 5)))
    ((header, payloads),) = frames.split(parts)
    with pytest.raises(BadMessage, match="only requests"):
        frames.parse(header, payloads)
