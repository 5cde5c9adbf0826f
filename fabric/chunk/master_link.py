"""The conversation with the master: heartbeats out, assignments in.

At most one heartbeat is without an answer.  The next one follows after the interval, or at once when
something changed that the master decides by.  A master that does not answer is asked for ever; meanwhile
the lease runs out and takes the writes away, and reads go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from fabric.chunk.standing import Standing
from fabric.node.calls import Calls
from fabric.node.effects import Effect, Payload
from fabric.settings import Settings
from fabric.wire.messages import Assignment, Failed, Heartbeat, Message

if TYPE_CHECKING:
    from typing import TypeAlias

RETRY_S = 0.25
"""Pause after a heartbeat that was not answered by an assignment, if the interval is not shorter."""

log = logging.getLogger("fabric")

Adopted: TypeAlias = "Callable[[Assignment, bool, float], list[Effect]]"
"""Takes an assignment that was adopted, whether it changed anything, and the time."""


class MasterLink:
    """Who tells the master, and hears from it."""

    def __init__(
        self,
        *,
        master: str,
        settings: Settings,
        calls: Calls,
        standing: Standing,
        heartbeat: Callable[[int], Heartbeat],
        adopted: Adopted,
    ) -> None:
        """``heartbeat`` makes the message, given its ``deadline_ms``."""
        self._master = master
        self._interval_s = settings.heartbeat_interval_s
        # Two tries within a lease: a heartbeat that was lost must not cost it.
        self._timeout_ms = max(1, int(settings.lease_s * 500))
        self._calls = calls
        self._standing = standing
        self._heartbeat = heartbeat
        self._adopted = adopted
        self.due_at: float | None = None
        """When the next heartbeat is due; None before the first ``soon``, and while one has no answer."""
        self._begun = False
        self._again = False
        """Something has changed since the heartbeat that has no answer yet."""
        self._complaint = ""

    def begin(self, now: float) -> None:
        """There is something to say: send the first heartbeat."""
        self._begun = True
        self.due_at = now

    def soon(self, now: float) -> None:
        """Something has changed that the master should know at once."""
        if self.due_at is not None:
            self.due_at = now
        elif self._begun:
            self._again = True

    def on_tick(self, now: float) -> list[Effect]:
        """Send a heartbeat if one is due."""
        if self.due_at is None or now < self.due_at:
            return []
        self.due_at = None
        self._again = False

        def on_answer(message: Message, payload: Payload | None, later: float) -> list[Effect]:
            return self._on_answer(message, now, later)

        return [self._calls.start(self._master, self._heartbeat(self._timeout_ms), now, on_answer)]

    def on_unasked(self, assignment: Assignment, now: float) -> list[Effect]:
        """The master did not wait for a heartbeat."""
        return self._adopt(assignment, None, now)

    def _on_answer(self, message: Message, sent_at: float, now: float) -> list[Effect]:
        effects: list[Effect] = []
        pause_s = self._interval_s
        if isinstance(message, Assignment):
            self._complain("")
            effects = self._adopt(message, sent_at, now)
        else:
            self._complain(message.message if isinstance(message, Failed) else type(message).__name__)
            pause_s = min(pause_s, RETRY_S)
        self.due_at = now if self._again else now + pause_s
        return effects

    def _adopt(self, assignment: Assignment, sent_at: float | None, now: float) -> list[Effect]:
        changed = self._standing.adopt(assignment, sent_at)
        if changed is None:
            return []
        if changed:
            log.info(
                "%s in group %d, epoch %d.%d",
                assignment.mode,
                assignment.group,
                assignment.term,
                assignment.epoch,
            )
            self.soon(now)
        return self._adopted(assignment, changed, now)

    def _complain(self, text: str) -> None:
        """Log what the master answers, each thing once."""
        if text != self._complaint:
            log.warning("master %s: %s", self._master, text or "answers again")
        self._complaint = text
