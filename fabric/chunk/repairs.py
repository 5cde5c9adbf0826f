"""Damaged copies that wait for a good one from a peer.

A few at a time; one that no peer could give is asked for again later, and after some tries left to the next
scrub.  The number that waits is bounded: the scrub finds the rest again.
"""

from __future__ import annotations

import random
from collections import deque
from functools import partial

import msgspec

from fabric.chunk.pull import Puller
from fabric.chunk.standing import Standing
from fabric.node.effects import Effect
from fabric.wire.messages import BucketEntry

REPAIRS_MAX = 8
"""At once."""
WAITING_MAX = 10_000
TRIES_MAX = 10
PAUSE_S = 30.0
"""Before a fragment that nobody could give is asked for again."""


class _Damaged(msgspec.Struct):
    entry: BucketEntry
    due_at: float
    tries: int = 0


class Repairs:
    """Which damaged fragments to fetch, and when."""

    def __init__(self, puller: Puller, standing: Standing, rng: random.Random) -> None:
        self._puller = puller
        self._standing = standing
        self._rng = rng
        self._ready: deque[_Damaged] = deque()
        self._paused: dict[int, _Damaged] = {}
        """In the order in which they are due."""
        self._known: set[int] = set()
        """Fids that wait or are under way."""
        self._under_way = 0

    def add(self, entry: BucketEntry, now: float) -> list[Effect]:
        """Have this fragment repaired: at once, also if it was put off."""
        paused = self._paused.pop(entry.fid, None)
        if paused is not None:
            self._ready.append(paused)
            return self._take(now)
        if entry.fid in self._known or len(self._known) >= WAITING_MAX:
            return []
        self._known.add(entry.fid)
        self._ready.append(_Damaged(entry, now))
        return self._take(now)

    def on_tick(self, now: float) -> list[Effect]:
        """Try again those whose pause is over."""
        while (due_at := self.next_deadline()) is not None and due_at <= now:
            self._ready.append(self._paused.pop(next(iter(self._paused))))
        return self._take(now)

    def next_deadline(self) -> float | None:
        """When the next pause is over; None when none is."""
        return next(iter(self._paused.values())).due_at if self._paused else None

    def _take(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while self._ready and self._under_way < REPAIRS_MAX:
            damaged = self._ready.popleft()
            peers = list(self._standing.peers)
            if not peers:
                # A pull from nobody is back at once, and would come here once more for each that waits.
                self._note_try(damaged, False, now)
                continue
            self._under_way += 1
            self._rng.shuffle(peers)
            effects += self._puller.pull(damaged.entry, peers, now, partial(self._on_end, damaged))
        return effects

    def _on_end(self, damaged: _Damaged, settled: bool, now: float) -> list[Effect]:
        self._under_way -= 1
        self._note_try(damaged, settled, now)
        return self._take(now)

    def _note_try(self, damaged: _Damaged, settled: bool, now: float) -> None:
        damaged.tries += 1
        if settled or damaged.tries >= TRIES_MAX:
            self._known.discard(damaged.entry.fid)
        else:
            damaged.due_at = now + PAUSE_S
            self._paused[damaged.entry.fid] = damaged
