"""Carries fragments from one group to another, when the master has some to move.

    TakeMoves -> for each: read it from its group -> store it in another, under a new fid -> Relocate -> again

A move is an upload whose bytes come from a download, so it has all their care: checksums, other replicas,
every replica of the new group.  What cannot be moved now is left: the master hands it out again.  A new
fragment that no object came to name is aborted when the master says so for certain; else the audit finds it.

Movers are guests: they take part of the proxy's memory and stop when clients need it.
"""

from __future__ import annotations

from collections.abc import Callable

from fabric.node.effects import Effect, Payload
from fabric.proxy.context import Context
from fabric.proxy.download import Download
from fabric.proxy.upload import Upload
from fabric.settings import MIB
from fabric.wire.messages import (
    Failed,
    FragmentData,
    FragmentRef,
    Message,
    Move,
    Moved,
    Moves,
    Relocate,
    Relocated,
    TakeMoves,
)

ROOM_BYTES = 32 * MIB
"""Fragments under way at a time."""
TIMEOUT_MS = 5_000
MOVE_S = 20.0
"""A fragment that is not carried over by then is given up."""
TRIES_MAX = 3
"""For a fragment; then it is left, and handed out again when its lease is over."""
RETRY_S = 1.0

StartUpload = Callable[[Upload, float], list[Effect]]


class Mover:
    """One round under way at a time."""

    def __init__(self, context: Context, start_upload: StartUpload) -> None:
        self._context = context
        self._start_upload = start_upload
        self._due_at: float | None = None
        self._busy = False
        self._under_way = 0
        self._moved: list[Moved] = []
        self._pause_s = 0.0

    def on_view(self, now: float) -> None:
        """The view may have changed: is there anything to move?"""
        if not self._context.view.moving:
            self._due_at = None
        elif self._due_at is None:
            self._due_at = now

    def next_deadline(self) -> float | None:
        """When to ask; None while a round is under way, and when nothing is to be moved."""
        return None if self._busy else self._due_at

    def on_tick(self, now: float) -> list[Effect]:
        """Ask for fragments to move, if it is time."""
        due_at = self.next_deadline()
        if due_at is None or now < due_at:
            return []
        context = self._context
        room = min(ROOM_BYTES, context.settings.proxy_inflight_bytes_max // 2 - context.inflight_bytes)
        if room <= 0:
            self._due_at = now + RETRY_S
            return []
        self._busy = True
        self._pause_s = RETRY_S
        return [
            context.calls.start(
                context.master, TakeMoves(TIMEOUT_MS, context.name, room), now, self._on_moves
            )
        ]

    def _on_moves(self, answer: Message, payload: Payload | None, now: float) -> list[Effect]:
        if not isinstance(answer, Moves) or not answer.moves:
            return self._end_round(answer.pause_ms / 1000 if isinstance(answer, Moves) else RETRY_S, now)
        self._pause_s = answer.pause_ms / 1000
        self._moved = []
        self._under_way = len(answer.moves)
        return [effect for move in answer.moves for effect in self._carry(move, now)]

    # --- one fragment -----------------------------------------------------------------------------

    def _carry(self, move: Move, now: float, tries: int = 1) -> list[Effect]:
        fragment = move.fragment
        deadline = now + MOVE_S
        self._context.inflight_bytes += fragment.length

        def stored(target: FragmentRef, epoch: int, now: float) -> list[Effect]:
            self._moved.append(Moved(fragment, target))
            return self._settled(fragment, now)

        def give_up(failure: Failed, now: float) -> list[Effect]:
            if not failure.retryable or tries >= TRIES_MAX or now >= deadline:
                return self._settled(fragment, now)
            self._context.inflight_bytes -= fragment.length
            self._context.timers.start(now + RETRY_S, lambda now: self._carry(move, now, tries + 1))
            return []

        def read(data: FragmentData, payload: Payload, now: float) -> list[Effect]:
            upload = Upload(
                self._context,
                payload,
                fragment.checksum,
                deadline,
                stored,
                give_up,
                besides=fragment.group,
                target=move.target,
            )
            return self._start_upload(upload, now)

        return Download(self._context, fragment, 0, fragment.length, deadline, read, give_up).start(now)

    def _settled(self, fragment: FragmentRef, now: float) -> list[Effect]:
        self._context.inflight_bytes -= fragment.length
        self._under_way -= 1
        if self._under_way:
            return []
        if not self._moved:
            return self._end_round(RETRY_S, now)
        context = self._context
        return [
            context.calls.start(context.master, Relocate(TIMEOUT_MS, self._moved), now, self._on_relocated)
        ]

    # --- the end of a round -----------------------------------------------------------------------

    def _on_relocated(self, answer: Message, payload: Payload | None, now: float) -> list[Effect]:
        if not isinstance(answer, Relocated) or len(answer.named) != len(self._moved):
            # Unknown, and so nothing may be aborted: if no object names them, the audit finds them.
            return self._end_round(RETRY_S, now)
        unnamed = [
            move.target for move, is_named in zip(self._moved, answer.named, strict=True) if not is_named
        ]
        return self._context.abort_all(unnamed, now) + self._end_round(self._pause_s, now)

    def _end_round(self, pause_s: float, now: float) -> list[Effect]:
        self._busy = False
        self._due_at = now + pause_s if self._context.view.moving else None
        return []
