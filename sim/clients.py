"""A client: speaks wire messages to any proxy, within a deadline, and tries again.

A write keeps its operation id through all tries.  Its outcome is *acknowledged*; *refused* when every try
ended with an answer after which it is certain that nothing was done; else *unknown*.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fabric.errors import DeadlineExceeded
from fabric.node.calls import Calls
from fabric.node.effects import Effect, Payload, Sender
from fabric.wire.codec import failed
from fabric.wire.messages import Failed, Message, Request

if TYPE_CHECKING:
    from typing import TypeAlias

    from sim.process import Process

TRY_S = 4.0
PAUSE_S = 0.15
CERTAIN = frozenset(
    {"BUSY", "NO_WRITABLE_GROUP", "PRECONDITION", "NOT_FOUND", "BAD_REQUEST", "FID_EXPIRED", "NO_SPACE"}
)
"""Answers after which it is certain that this try has changed nothing."""

Then: TypeAlias = "Callable[[Message, Any, bool], list[Effect]]"
"""Takes the last answer, its payload, and whether some try may have taken effect."""


class Client:
    """The role of a client process; what it does is decided by ``workload``."""

    def __init__(self, rng: random.Random, proxies: list[str]) -> None:
        self.rng = rng
        self.proxies = proxies
        self.now = 0.0
        self.process: Process
        self._calls = Calls(rng)
        self._timers: list[tuple[float, int, Callable[[], list[Effect]]]] = []
        self._number = 0

    def begin_life(self) -> None:
        """A new life knows nothing of what the one before it waited for."""
        self._calls = Calls(self.rng)
        self._timers = []

    # --- the role ---------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        self.now = now
        return []

    def receive(
        self, message: object, sender: Sender, now: float, payload: Payload | None = None
    ) -> list[Effect]:
        self.now = now
        assert isinstance(message, Message)
        return self._calls.on_reply(message, sender, now, payload)

    def on_tick(self, now: float) -> list[Effect]:
        self.now = now
        effects = self._calls.on_tick(now)
        due = sorted(timer for timer in self._timers if timer[0] <= now)
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for _, _, action in due:
            effects += action()
        return effects

    def on_turn_end(self, now: float) -> list[Effect]:
        return []

    def next_deadline(self) -> float | None:
        deadlines = [timer[0] for timer in self._timers]
        call = self._calls.next_deadline()
        return min(deadlines if call is None else [call, *deadlines], default=None)

    # --- what the workload uses -------------------------------------------------------------------

    def wait(self, seconds: float, then: Callable[[], list[Effect]]) -> list[Effect]:
        """Do something later."""
        self._number += 1
        self._timers.append((self.now + seconds, self._number, then))
        return []

    def ask(
        self,
        make: Callable[[int], Request],
        payload: bytes | None,
        until: float,
        then: Then,
        uncertain: bool = False,
        not_again: str = "",
    ) -> list[Effect]:
        """Ask some proxy, and again while the answer is retryable and there is time.

        ``not_again``: a code of a retryable answer that is for the caller to deal with.
        """
        left_s = min(TRY_S, until - self.now)
        if left_s <= 0:
            return then(failed(DeadlineExceeded("the client has no more time")), None, uncertain)

        def on_answer(answer: Message, data: Payload | None, now: float) -> list[Effect]:
            if not isinstance(answer, Failed):
                return then(answer, data, uncertain)
            unsure = uncertain or answer.code not in CERTAIN
            if not answer.retryable or answer.code == not_again or self.now + PAUSE_S >= until:
                return then(answer, None, unsure)
            pause_s = PAUSE_S * self.rng.uniform(0.5, 4.0)
            return self.wait(pause_s, lambda: self.ask(make, payload, until, then, unsure, not_again))

        endpoint = self.rng.choice(self.proxies)
        deadline_ms = max(1, int(left_s * 1000))
        return [self._calls.start(endpoint, make(deadline_ms), self.now, on_answer, payload)]
