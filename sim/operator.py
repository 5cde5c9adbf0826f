"""An operator: gives orders to the master, again while the answer is lost, until somebody answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fabric.errors import Unavailable
from fabric.node.effects import Effect
from fabric.wire.codec import failed
from fabric.wire.messages import Failed, Message, Request, SetServerStatus, StartTask
from sim.clients import Client
from sim.hosts import MASTER
from sim.process import Built, Process

if TYPE_CHECKING:
    from sim.world import World

PATIENCE_S = 10.0


class Operator(Client):
    """Everything that it orders is safe to repeat, so it does."""

    def __init__(self, world: World, rng: random.Random) -> None:
        super().__init__(rng, [MASTER])
        self.world = world
        self._wishes: dict[str, str] = {}
        self.ordered: set[str] = set()
        """Kinds of tasks."""
        self.waiting = 0
        """Orders without an answer."""

    def set_status(self, server: str, status: str) -> None:
        """``rw`` or ``ro``; of several wishes for a server the last one holds."""
        is_under_way = server in self._wishes
        self._wishes[server] = status
        if not is_under_way:
            self._ask_status(server)

    def _ask_status(self, server: str) -> None:
        wish = self._wishes[server]

        def then(answer: Message) -> None:
            is_lost = isinstance(answer, Failed) and answer.retryable
            if self._wishes[server] == wish and not is_lost:
                del self._wishes[server]
            else:
                self._ask_status(server)

        self.order(lambda ms: SetServerStatus(ms, server, wish), then)

    def order(
        self,
        make: Callable[[int], Request],
        then: Callable[[Message], None] = lambda answer: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Ask the master for something; ``make`` takes milliseconds, ``then`` the last answer."""
        if not self.process.alive:
            then(failed(Unavailable("the operator is away")))
            return
        self.now = self.world.now
        self.waiting += 1
        order = make(0)
        self.world.note("operator", order)
        if isinstance(order, StartTask):
            self.ordered.add(order.kind)

        def on_answer(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            self.waiting -= 1
            text = f"{answer.code}: {answer.message}" if isinstance(answer, Failed) else "done"
            self.world.note("operator", type(order).__name__, text)
            then(answer)
            return []

        self.process.act(lambda: self.ask(make, None, self.now + patience_s, on_answer))


def make_operator(world: World) -> Operator:
    """An operator, who is never killed."""
    operator = Operator(world, random.Random(world.rng.getrandbits(64)))
    operator.process = Process(
        world, "operator", "tcp://operator:1", lambda process: Built(operator), "operator"
    )
    return operator
