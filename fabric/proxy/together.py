"""Small fragments that came in one turn: their first attempt is made together, in one message a replica.

Each remains an ``Upload`` of its own, with its own fid and outcome: what a replica does not confirm is
aborted and goes on as if it had been sent alone; the others wait for one another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fabric.errors import UnknownKind, error_from_code
from fabric.node.calls import Continuation
from fabric.node.effects import Effect, Payload, Unread
from fabric.proxy.context import Context
from fabric.proxy.master_link import MasterLink
from fabric.proxy.placement import choose_group
from fabric.proxy.upload import Upload, other_bytes
from fabric.settings import KIB
from fabric.wire.codec import failed
from fabric.wire.messages import (
    Failed,
    FragmentRef,
    FragmentsStored,
    GroupView,
    Message,
    NodeView,
    StoreFragments,
)

SMALL_BYTES = 16 * KIB
ROUND_BYTES_MAX = 256 * KIB
ROUND_FRAGMENTS_MAX = 64
ALONE_S = 60.0
"""A server of an earlier version is not asked again for so long."""


class Together:
    """Uploads of this turn."""

    def __init__(self, context: Context, link: MasterLink) -> None:
        self._context = context
        self._link = link
        self._gathered: deque[Upload] = deque()
        self._alone_until: dict[str, float] = {}
        """Endpoint -> until when it is sent single fragments only."""

    def add(self, upload: Upload, now: float) -> list[Effect]:
        """Start it: at once, or at the end of this turn if it is small."""
        if upload.length > SMALL_BYTES or isinstance(upload.payload, Unread):
            return self._link.start_upload(upload, now)
        self._gathered.append(upload)
        return []

    def on_turn_end(self, now: float) -> list[Effect]:
        """Start what was gathered."""
        effects: list[Effect] = []
        while self._gathered:
            effects += self._start(self._take(), now)
        return effects

    def _take(self) -> list[Upload]:
        uploads = [self._gathered.popleft()]
        size = uploads[0].length
        while self._gathered and len(uploads) < ROUND_FRAGMENTS_MAX:
            size += self._gathered[0].length
            if size > ROUND_BYTES_MAX:
                break
            uploads.append(self._gathered.popleft())
        return uploads

    def _start(self, uploads: list[Upload], now: float) -> list[Effect]:
        context = self._context
        late = [upload for upload in uploads if upload.deadline <= now]
        uploads = [upload for upload in uploads if upload.deadline > now]
        group = None
        if len(uploads) > 1:
            groups = [group for group in context.view.writable_groups() if self._takes_several(group, now)]
            size = sum(upload.length for upload in uploads)
            group = choose_group(groups, context.pending_bytes, size, context.rng)
        fids = context.fids.take_several(len(uploads), now) if group is not None else []
        single = [*late, *uploads[len(fids) :]]
        effects: list[Effect] = []
        if group is not None and fids:
            started = dict(zip(fids, uploads, strict=False))
            effects += Round(context, group, started, self._on_unknown).start(now)
        for upload in single:
            effects += self._link.start_upload(upload, now)
        return effects

    def _takes_several(self, group: GroupView, now: float) -> bool:
        if not self._alone_until:
            return True
        return all(
            self._alone_until.get(node.endpoint, now) <= now
            for node in self._context.view.members(group.group)
        )

    def _on_unknown(self, node: NodeView, now: float) -> None:
        """This server does not know ``StoreFragments``."""
        self._alone_until[node.endpoint] = now + ALONE_S


class Round:
    """Several uploads, by fid, on their way to every member of one group."""

    def __init__(
        self,
        context: Context,
        group: GroupView,
        uploads: dict[int, Upload],
        on_unknown: Callable[[NodeView, float], None],
    ) -> None:
        self._context = context
        self._group = group
        self._open = uploads
        self._on_unknown = on_unknown
        self._missing = set(group.members)
        self._fragments = [
            FragmentRef(group.group, fid, upload.length, upload.checksum) for fid, upload in uploads.items()
        ]

    def start(self, now: float) -> list[Effect]:
        context, group = self._context, self._group
        members = context.view.members(group.group)
        for fid, upload in self._open.items():
            upload.begin(fid, group, members)
        # Who waits less long is not in the way of the others; its sender has given it up by itself.
        deadline = max(upload.deadline for upload in self._open.values())
        timeout_ms = context.store_timeout_ms(deadline, now)
        request = StoreFragments(timeout_ms, group.group, group.epoch, self._fragments)
        data = b"".join(memoryview(upload.payload) for upload in self._open.values())  # type: ignore[arg-type]
        return [
            context.calls.start(node.endpoint, request, now, self._confirm(node), data) for node in members
        ]

    def _confirm(self, node: NodeView) -> Continuation:
        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            return self._on_answer(node, answer, now)

        return on_answer

    def _on_answer(self, node: NodeView, answer: Message, now: float) -> list[Effect]:
        self._missing.discard(node.server)
        effects: list[Effect] = []
        if answer != FragmentsStored(self._group.group, self._group.epoch, self._fragments, []):
            if isinstance(answer, Failed) and answer.code == UnknownKind.code:
                self._on_unknown(node, now)
            for fid, failure in self._failures(node, answer):
                effects += self._open.pop(fid).failed(node.server, failure, now)
        if not self._missing:
            stored, self._open = self._open, {}
            for upload in stored.values():
                effects += upload.stored(now)
        return effects

    def _failures(self, node: NodeView, answer: Message) -> list[tuple[int, Failed]]:
        """What of that which nobody else has refused this server does not confirm, and why."""
        if isinstance(answer, Failed):
            return [(fid, answer) for fid in self._open]
        stored: set[FragmentRef] = set()
        reasons: dict[int, Failed] = {}
        if isinstance(answer, FragmentsStored) and (answer.group, answer.epoch) == (
            self._group.group,
            self._group.epoch,
        ):
            stored.update(answer.stored)
            reasons = {each.fid: failed(error_from_code(each.code, each.message)) for each in answer.refused}
        other = other_bytes(node.server)
        return [
            (each.fid, reasons.get(each.fid, other))
            for each in self._fragments
            if each.fid in self._open and each not in stored
        ]
