"""The contract between a role and whatever drives it: a ZeroMQ loop, or the simulator."""

from __future__ import annotations

from typing import Protocol

from fabric.node.effects import Effect, Payload, Sender


class Role(Protocol):
    """A state machine.  Everything that happens enters through ``receive`` or ``on_tick``.

    ``now`` is a monotonic time in seconds and never goes back.  A role does no I/O, reads no clock
    and takes its randomness from a ``random.Random`` that it was given.
    """

    def start(self, now: float) -> list[Effect]:
        """What to do first; called once."""
        ...

    def receive(
        self, message: object, sender: Sender, now: float, payload: Payload | None = None
    ) -> list[Effect]:
        """Handle a wire message, or the result of a ``Run`` (sender ``WORKER``)."""
        ...

    def on_tick(self, now: float) -> list[Effect]:
        """Called when ``next_deadline()`` has passed, and harmless at any other time."""
        ...

    def on_turn_end(self, now: float) -> list[Effect]:
        """Called when what had come has been received: begin what was gathered meanwhile, as one batch.

        There may be many calls of ``receive`` before it, or one; ``start`` and ``on_tick`` are followed by it
        too.
        """
        ...

    def next_deadline(self) -> float | None:
        """The time of the next ``on_tick`` that matters; None when nothing is due."""
        ...
