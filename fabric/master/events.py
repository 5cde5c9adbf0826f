"""What the master did and noticed lately, and why: for people who ask what happened.

Kept in memory and, a moment later, in the store, so that a restart tells the story on.  An event that is lost
by a crash in that moment is a line less in the story: nothing is decided by events.
"""

from __future__ import annotations

from collections import deque

import msgspec

from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.store import Reader
from fabric.wire.messages import EventRecord

KEPT = 1_000
"""Events; the oldest go."""
TEXT_MAX = 500
PER_STEP_MAX = 100

_decode = msgspec.msgpack.Decoder(EventRecord).decode
_encode = msgspec.msgpack.Encoder().encode


class Events:
    """The last ``KEPT`` events."""

    def __init__(self) -> None:
        self._events: deque[EventRecord] = deque(maxlen=KEPT)
        self._unstored: deque[EventRecord] = deque(maxlen=KEPT)
        self._next = 1

    def load(self, store: Reader) -> None:
        """Take up what an earlier life of the master told."""
        pairs = store.scan(keys.EVENTS, keys.after_all(keys.EVENTS), KEPT, True)
        self._events.extend(_decode(value) for _, value in reversed(pairs))
        if pairs:
            self._next = keys.last_number(pairs[0][0]) + 1

    def note(self, at_ms: int, kind: str, subject: str, text: str) -> None:
        """Something happened.  ``at_ms``: wall clock, milliseconds since 1970."""
        event = EventRecord(self._next, max(0, at_ms), kind, subject, text[:TEXT_MAX])
        self._next += 1
        self._events.append(event)
        self._unstored.append(event)

    def after(self, number: int, limit: int) -> list[EventRecord]:
        """Those behind ``number``; of more than ``limit`` the newest."""
        found = [event for event in self._events if event.number > number]
        return found[-limit:]

    @property
    def is_unstored(self) -> bool:
        """Is there anything for ``store``?"""
        return bool(self._unstored)

    def store(self, delta: DeltaStore) -> None:
        """Write the next ones, and forget as many old ones."""
        for _ in range(min(len(self._unstored), PER_STEP_MAX)):
            event = self._unstored.popleft()
            delta.put(keys.event_key(event.number), _encode(event))
            if event.number > KEPT:
                delta.delete(keys.event_key(event.number - KEPT))
