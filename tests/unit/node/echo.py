"""A tiny role on a real loop over loopback sockets, and raw peers that talk to it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import zmq

from fabric.node.effects import WORKER, Effect, Exit, Publish, Reply, Run, Send, Sender
from fabric.node.lanes import Lane
from fabric.node.zmq_loop import ZmqLoop
from fabric.wire import codec
from fabric.wire.messages import (
    CatalogChanged,
    Failed,
    FragmentData,
    Message,
    Ping,
    Pong,
    PutFragment,
    ReadFragment,
    ReportFailure,
    Request,
    Stat,
)

WAIT_MS = 5_000
"""No test waits so long unless it fails."""


class Echo:
    """Answers ``Ping`` and ``PutFragment``; ``ReadFragment`` gives ``length`` bytes back.

    ``Stat`` runs its path as a job on the lane and answers with the result.  ``ReportFailure``
    sends a ``Ping`` to the endpoint in ``detail`` and answers with what becomes of it.
    """

    def __init__(self) -> None:
        self.received: list[object] = []
        self.published: list[object] = []
        self.times: list[float] = []
        self.jobs: deque[Sender] = deque()
        self.asked: dict[int, Sender] = {}
        self.deadline: float | None = None
        self.next_id = 1
        self.on_request: Callable[[object, Sender], list[Effect] | None] = lambda message, sender: None

    def start(self, now: float) -> list[Effect]:
        return []

    def on_tick(self, now: float) -> list[Effect]:
        self.deadline = None
        self.times.append(now)
        return []

    def on_turn_end(self, now: float) -> list[Effect]:
        return []

    def next_deadline(self) -> float | None:
        return self.deadline

    def receive(self, message: object, sender: Sender, now: float, payload: Any = None) -> list[Effect]:
        self.times.append(now)
        if sender == WORKER:
            return [Reply(self.jobs.popleft(), Pong("echo", str(message), ""))]
        if sender.route == "published":
            self.published.append(message)
            return []
        self.received.append(message)
        if isinstance(sender.route, str):
            return [Reply(self.asked.pop(sender.request_id), message)]  # type: ignore[arg-type]
        special = self.on_request(message, sender)
        return special if special is not None else self.echo(message, sender, payload)

    def echo(self, message: object, sender: Sender, payload: Any) -> list[Effect]:
        match message:
            case Ping():
                return [Reply(sender, Pong("echo", "e", "1"))]
            case PutFragment():
                return [Reply(sender, FragmentData(0, 0, message.checksum), payload)]
            case ReadFragment():
                return [Reply(sender, FragmentData(0, 0, 0), b"x" * message.length)]
            case Stat(path="exit"):
                return [Exit("enough", 3)]
            case Stat(path="publish"):
                return [Publish(CatalogChanged(1, 2, ["a"])), Reply(sender, Pong("echo", "p", ""))]
            case Stat():
                self.jobs.append(sender)
                return [Run("lane", message.path)]
            case ReportFailure():
                request_id = self.next_id
                self.next_id += 1
                self.asked[request_id] = sender
                return [Send(message.detail, request_id, Ping(1000))]
        return []


@contextmanager
def running(
    role: Any = None,
    *,
    listen: str = "tcp://127.0.0.1:0",
    publish: str | None = None,
    subscribe: Sequence[str] = (),
    lane: Callable[[object], object] = lambda job: f"did {job}",
    shares_memory: bool = False,
) -> Iterator[Running]:
    """A loop in a thread of its own, stopped at the end; its status must then be 0 unless taken."""
    it = Running(role or Echo(), listen, publish, subscribe, lane, shares_memory)
    it.thread.start()
    try:
        yield it
    finally:
        it.loop.stop()
        it.thread.join(WAIT_MS / 1000)
        assert not it.thread.is_alive()
        assert it.statuses == [it.expected_status]


@contextmanager
def looping(role: Any, **options: Any) -> Iterator[str]:
    """The same, where only its endpoint is of interest."""
    with running(role, **options) as it:
        yield it.endpoint


class Running:
    def __init__(
        self,
        role: Any,
        listen: str,
        publish: str | None,
        subscribe: Sequence[str],
        lane: Any,
        shares_memory: bool = False,
    ) -> None:
        self.role = role
        self.loop = ZmqLoop(
            role,
            listen=listen,
            publish=publish,
            subscribe=subscribe,
            lanes={"lane": Lane(lane)},
            shares_memory=shares_memory,
        )
        self.endpoint = self.loop.endpoint
        self.statuses: list[int] = []
        self.expected_status = 0
        self.thread = threading.Thread(target=lambda: self.statuses.append(self.loop.run()))

    def ends_with(self, status: int) -> None:
        self.expected_status = status
        self.thread.join(WAIT_MS / 1000)
        assert not self.thread.is_alive()


class RawPeer:
    """A socket that sends whatever frames it is told to."""

    def __init__(self, endpoint: str, kind: int = zmq.DEALER, **options: int) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        self.socket.setsockopt(zmq.SNDTIMEO, WAIT_MS)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(endpoint)

    @staticmethod
    @contextmanager
    def listening() -> Iterator[tuple[zmq.Socket[bytes], str]]:
        """A ROUTER that the test answers by hand, and its endpoint."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        router.bind("tcp://127.0.0.1:*")
        try:
            yield router, router.getsockopt(zmq.LAST_ENDPOINT).decode()  # type: ignore[union-attr]
        finally:
            context.destroy(0)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.context.destroy(0)

    def send(self, request_id: int, message: Message, *payload: bytes) -> None:
        self.socket.send_multipart([b"", codec.encode(request_id, message), *payload])

    def receive(self) -> tuple[int, Message, list[bytes]]:
        empty, header, *payload = self.socket.recv_multipart()
        assert empty == b""
        request_id, message = codec.decode(header)
        return request_id, message, payload

    def ask(self, request_id: int, message: Request, *payload: bytes) -> Message:
        self.send(request_id, message, *payload)
        answered_id, answer, _ = self.receive()
        assert answered_id == request_id
        return answer

    def assert_served(self, request_id: int = 999) -> None:
        """The loop still answers a good request."""
        assert isinstance(self.ask(request_id, Ping(1000)), Pong)

    def refusal(self, *frames: bytes) -> Failed:
        self.socket.send_multipart(frames)
        _, answer, _ = self.receive()
        assert isinstance(answer, Failed)
        return answer
