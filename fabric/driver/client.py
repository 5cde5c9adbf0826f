"""Requests to a proxy from an asyncio program.

One DEALER, one reader, answers matched by request id.  The ZeroMQ descriptor is watched by the event
loop itself; it signals edges, so after every send and every wake-up the socket is read until it is
empty.  (``zmq.asyncio`` does the same for any use, at about twice the cost.)

``request`` repeats what may be repeated, with pauses that grow, until its patience ends.  Everything
sent through it is idempotent: reads, commits with an operation id, and stores, whose only trace when
repeated is a fragment that nothing names.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, TypeVar

import msgspec
import zmq

from fabric.errors import BadMessage, DeadlineExceeded, FabricError, Internal, Unavailable
from fabric.node.peer import Peer
from fabric.node.sockets import descriptor, readable
from fabric.settings import Settings
from fabric.wire import codec
from fabric.wire.messages import Failed, Message, Request

PAUSE_S = 0.02
PAUSE_S_MAX = 0.5
FLUSH_S = 0.005
QUESTIONS_TOGETHER = 8
"""So many requests without a payload go ahead: the proxy works on them while others are made."""

Answer = TypeVar("Answer", bound=Message)

_Open = tuple["asyncio.Future[tuple[Message, Any]]", float]
"""A request without an answer, and the time of the loop at which it is given up."""


class Client:
    """One connection to one proxy.  Use inside a running event loop."""

    def __init__(self, proxy: str, settings: Settings) -> None:
        self._endpoint = proxy
        self._settings = settings
        self._rng = random.Random()
        self._next_id = self._rng.randrange(1, 2**47)
        self._open: dict[int, _Open] = {}
        self._timer: asyncio.TimerHandle | None = None
        """Rings when the first of these runs out of time, or before."""
        self._rings_at = 0.0
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._flushing = False
        self._unsent = 0
        """Requests since the last flush."""

    async def start(self) -> None:
        """Begin to connect.  Requests made before the connection stands wait for it."""
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context()
        self._peer = Peer(self._context, self._endpoint, shares_memory=self._settings.near_writes)
        self._loop.add_reader(descriptor(self._peer.socket), self._on_readable)
        self._loop.add_reader(descriptor(self._peer.monitor), self._on_monitor)
        # A descriptor signals only after its socket was once found empty.
        self._on_monitor()
        self._on_readable()

    async def close(self) -> None:
        """Close the connection; requests under way end as Unavailable."""
        if self._context is None:
            return
        self._loop.remove_reader(descriptor(self._peer.socket))
        self._loop.remove_reader(descriptor(self._peer.monitor))
        for request_id in list(self._open):
            self._end(request_id, Unavailable("the client was closed"))
        self._peer.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._context.destroy()
        self._context = None

    def proxy_reads_memory(self) -> bool:
        """Whether payloads in memory files of this process may be named instead of sent, at present."""
        return self._context is not None and self._peer.reads_memory()

    async def request(
        self,
        kind: type[Answer],
        message: Request,
        payload: Any = None,
        *,
        patience_s: float | None = None,
        not_again: type[FabricError] | None = None,
    ) -> tuple[Answer, Any]:
        """Ask until there is an answer of type ``kind`` or patience ends; returns it with its payload.

        An error of type ``not_again`` is raised at once, retryable or not.

        ``message.deadline_ms`` is set here.  Raises the FabricError that the last answer stood for.
        """
        patience_s = self._settings.write_patience_s if patience_s is None else patience_s
        give_up_at = self._loop.time() + patience_s
        pause_s = PAUSE_S
        while True:
            left_s = max(0.05, give_up_at - self._loop.time())
            try:
                answer, data = await self._ask(
                    message, payload, min(left_s, self._settings.request_timeout_s)
                )
                if type(answer) is kind:
                    return answer, data
                raise Internal(f"expected {kind.__name__}, got {type(answer).__name__}")
            except FabricError as error:
                if self._context is None:
                    raise  # closed: asking again is in vain
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
                pause = pause_s * self._rng.uniform(0.5, 1.0)
                if not error.retryable or self._loop.time() + pause >= give_up_at:
                    raise
                if not_again is not None and isinstance(error, not_again):
                    raise
            await asyncio.sleep(pause)

    async def _ask(self, message: Request, payload: Any, timeout_s: float) -> tuple[Message, Any]:
        if self._context is None:
            raise Unavailable("the client is closed")
        request_id = self._next_id
        self._next_id += 1
        future: asyncio.Future[tuple[Message, Any]] = self._loop.create_future()
        expires_at = self._loop.time() + timeout_s
        self._open[request_id] = future, expires_at
        if self._timer is None or expires_at < self._rings_at:
            self._set_timer(expires_at)
        stamped = msgspec.structs.replace(message, deadline_ms=max(1, int(timeout_s * 1000)))
        try:
            if not self._peer.send(request_id, stamped, payload):
                raise Unavailable(f"the proxy {self._endpoint} cannot be reached")
            self._unsent += 1
            if payload is None and self._unsent >= QUESTIONS_TOGETHER:
                self._send()
            elif not self._flushing:
                # With what others ask for in this turn of the loop.
                self._flushing = True
                self._loop.call_soon(self._flush)
            answer, data = await future
        finally:
            self._open.pop(request_id, None)
            self._peer.unanswered.discard(request_id)
        if isinstance(answer, Failed):
            raise codec.raised(answer)
        return answer, data

    def _set_timer(self, expires_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = self._loop.call_at(expires_at, self._on_timer), expires_at

    def _on_timer(self) -> None:
        # One for all requests: nearly all are answered long before, and a timer costs a tenth of a request.
        self._timer = None
        now = self._loop.time()
        for request_id in [key for key, (_, expires_at) in self._open.items() if expires_at <= now]:
            self._end(request_id, DeadlineExceeded(f"no answer from the proxy {self._endpoint} in time"))
        if self._open:
            self._set_timer(min(expires_at for _, expires_at in self._open.values()))

    def _end(self, request_id: int, error: FabricError) -> None:
        found = self._open.pop(request_id, None)
        if found is not None and not found[0].done():
            found[0].set_exception(error)

    def _read_if_ready(self) -> None:
        # Sending may have swallowed the edge that announced an answer.
        if readable(self._peer.socket):
            self._loop.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        if self._context is None:
            return
        while True:
            try:
                received = self._peer.receive()
            except zmq.Again:
                return
            except BadMessage:
                continue  # not an answer to anything; its request runs into its deadline
            for request_id, message, payload in received:
                found = self._open.pop(request_id, None)
                if found is not None and not found[0].done():
                    found[0].set_result((message, payload))

    def _on_monitor(self) -> None:
        if self._context is None:
            return
        for request_id in self._peer.on_monitor():
            self._end(request_id, Unavailable(f"the connection to the proxy {self._endpoint} broke"))
        self._read_if_ready()

    def _flush(self) -> None:
        self._flushing = False
        if self._context is not None:
            self._send()

    def _send(self) -> None:
        self._unsent = 0
        self._peer.flush()
        if self._peer.waiting and not self._flushing:
            self._flushing = True
            self._loop.call_later(FLUSH_S, self._flush)
        self._read_if_ready()
