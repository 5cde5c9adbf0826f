"""Requests that a role has under way: an id for each, a continuation, a deadline.

Pure bookkeeping.  Every call ends exactly once: with its reply, with a ``Failed`` that the peer
sent, or with a ``Failed`` of code DEADLINE made here.  A reply that comes later is dropped.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import msgspec

from fabric.errors import DeadlineExceeded, FabricError
from fabric.node.effects import Effect, Payload, Send, Sender
from fabric.wire.codec import failed
from fabric.wire.messages import Message, Request

Continuation = Callable[[Message, Payload | None, float], list[Effect]]
"""Takes the answer (maybe ``Failed``), its payload and the time; returns effects."""


class _Call(msgspec.Struct):
    endpoint: str
    then: Continuation
    kind: str


class Calls:
    """The requests of one role that have no answer yet."""

    def __init__(self, rng: random.Random) -> None:
        # Ids start at random so that an answer meant for an earlier life of this process is not taken
        # for ours; 0 is for messages that nobody asked for.
        self._next_id = rng.randrange(1, 2**47)
        self._open: dict[int, _Call] = {}
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._open)

    def start(
        self,
        endpoint: str,
        message: Request,
        now: float,
        then: Continuation,
        payload: Payload | None = None,
    ) -> Send:
        """Register the call; its deadline is ``message.deadline_ms`` from now."""
        request_id = self._next_id
        self._next_id += 1
        self._open[request_id] = _Call(endpoint, then, type(message).__name__)
        heapq.heappush(self._deadlines, (now + message.deadline_ms / 1000, request_id))
        return Send(endpoint, request_id, message, payload)

    def on_reply(
        self, message: Message, sender: Sender, now: float, payload: Payload | None = None
    ) -> list[Effect]:
        """End the call that this answers; nothing if it has ended before."""
        call = self._open.get(sender.request_id)
        if call is None or call.endpoint != sender.route:
            return []
        del self._open[sender.request_id]
        return call.then(message, payload, now)

    def on_tick(self, now: float) -> list[Effect]:
        """End the calls whose deadline has passed."""
        effects: list[Effect] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request_id = heapq.heappop(self._deadlines)
            call = self._open.get(request_id)
            if call is not None:
                text = f"{call.kind}: no answer from {call.endpoint} in time"
                effects += self._fail(request_id, DeadlineExceeded(text), now)
        return effects

    def fail_where(self, endpoint: str, error: FabricError, now: float) -> list[Effect]:
        """End every call to ``endpoint`` now: it is known that no answer will come."""
        effects: list[Effect] = []
        for request_id in [i for i, call in self._open.items() if call.endpoint == endpoint]:
            effects += self._fail(request_id, error, now)
        return effects

    def next_deadline(self) -> float | None:
        """When the first open call runs out."""
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _fail(self, request_id: int, error: FabricError, now: float) -> list[Effect]:
        call = self._open.pop(request_id, None)
        return call.then(failed(error), None, now) if call is not None else []
