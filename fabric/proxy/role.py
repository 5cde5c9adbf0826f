"""The proxy: takes fragments and names from drivers, knows where they go and where they are.

It holds no state that matters: killing it loses what was under way and nothing else.  Its view of the
cluster comes from snapshots and published updates of the master, its fids from leases.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from fabric.errors import BadRange, BadRequest, Busy, FabricError, FidExpired, Unavailable
from fabric.node.effects import Effect, Payload, Reply, Sender
from fabric.proxy.context import Context
from fabric.proxy.download import Download
from fabric.proxy.master_link import MasterLink
from fabric.proxy.mover import Mover
from fabric.proxy.together import Together
from fabric.proxy.upload import Upload
from fabric.settings import Settings
from fabric.wire.codec import failed
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    Commit,
    Failed,
    FragmentData,
    FragmentRef,
    GetFragment,
    GetObject,
    ListFragments,
    ListObjects,
    Message,
    ObjectData,
    Open,
    Opened,
    Ping,
    Pong,
    PutFragment,
    PutObject,
    PutOperation,
    Request,
    Stat,
    Stored,
    Watch,
)

EMPTY_CHECKSUM = 0x2D06800538D394C2
"""xxh3-64 of no bytes."""
DEADLINE_MS_MAX = 60_000
"""No request is worked on for longer, whatever its sender says."""
_FORWARDED_BYTES, _OPERATION_BYTES, _FRAGMENT_BYTES = 4096, 1024, 256
"""What a forwarded request, and each part of a commit, counts for while it waits for the master."""
_REFUSED = frozenset({"PRECONDITION", "NOT_FOUND", "BAD_REQUEST", "REFUSED", "CONFLICT", "FID_EXPIRED"})
"""Answers to a commit after which it is certain that nothing names its fragments."""

_FORWARDED = (Commit, Stat, Open, ListFragments, ListObjects, Watch)


class ProxyRole:
    """A ``Role``.  ``name`` tells proxies apart in the master's log."""

    def __init__(
        self, *, name: str, master: str, settings: Settings, rng: random.Random, version: str = ""
    ) -> None:
        self._name = name
        self._version = version
        self._context = Context(name, master, settings, rng)
        self._settings = settings
        self._link = MasterLink(self._context)
        self._together = Together(self._context, self._link)
        self._mover = Mover(self._context, self._link.start_upload)
        self._handlers: dict[type, Callable[..., list[Effect]]] = {
            PutFragment: self._on_put_fragment,
            PutObject: self._on_put_object,
            GetFragment: self._on_get_fragment,
            GetObject: self._on_get_object,
            **dict.fromkeys(_FORWARDED, self._on_forwarded),
        }

    # --- the role ---------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Learn the cluster and get fids."""
        return self._link.start(now)

    def receive(
        self, message: object, sender: Sender, now: float, payload: Payload | None = None
    ) -> list[Effect]:
        """Handle a driver's request, a publication, or the answer to one of our own requests."""
        effects: list[Effect] = []
        if isinstance(sender.route, bytes):
            if isinstance(message, Request):
                effects = self._on_request(message, sender, now, payload)
        elif sender.route == "published":
            effects = self._link.on_published(message, now)
        elif isinstance(message, Message):
            effects = self._context.calls.on_reply(message, sender, now, payload)
        self._link.hurry_if_stale(now)
        self._mover.on_view(now)
        return effects

    def on_tick(self, now: float) -> list[Effect]:
        """End what ran out of time; refresh the view and the stock of fids."""
        effects = self._context.calls.on_tick(now) + self._context.timers.on_tick(now)
        self._link.hurry_if_stale(now)
        return effects + self._link.on_tick(now) + self._mover.on_tick(now)

    def on_turn_end(self, now: float) -> list[Effect]:
        """Store the small fragments that came."""
        effects = self._together.on_turn_end(now)
        self._link.hurry_if_stale(now)
        return effects

    def next_deadline(self) -> float | None:
        """The earliest of the next call's end, the next timer, the next refresh, and the next moves."""
        due = self._link.next_deadline()
        waiting = self._context.calls, self._context.timers, self._mover
        for at in (each.next_deadline() for each in waiting):
            if at is not None:
                due = min(due, at)
        return due

    def _on_request(
        self, message: Request, sender: Sender, now: float, payload: Payload | None
    ) -> list[Effect]:
        if isinstance(message, Ping):
            return [Reply(sender, Pong("proxy", self._name, self._version))]
        handler = self._handlers.get(type(message))
        if handler is None:
            text = f"a proxy does not answer {type(message).__name__}"
            return [Reply(sender, failed(BadRequest(text)))]
        if message.deadline_ms > DEADLINE_MS_MAX:
            message = msgspec.structs.replace(message, deadline_ms=DEADLINE_MS_MAX)
        return handler(message, sender, now, payload)

    # --- names ------------------------------------------------------------------------------------

    def _on_forwarded(
        self, message: Request, sender: Sender, now: float, payload: Payload | None
    ) -> list[Effect]:
        """Names are the master's: pass the question on, and the answer back."""
        size = _FORWARDED_BYTES
        if isinstance(message, Commit):
            size += sum(map(_operation_bytes, message.operations))
        refusal = self._admit(size)
        if refusal is not None:
            return [Reply(sender, failed(refusal))]

        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            if isinstance(message, Commit):
                self._after_commit(message, answer)
            return [self._finish(size, sender, answer)]

        return [self._context.calls.start(self._context.master, message, now, on_answer)]

    def _after_commit(self, commit: Commit, answer: Message) -> None:
        if isinstance(answer, Failed) and answer.code == FidExpired.code:
            self._context.fids.clear()
        # Whatever the answer: a commit that nobody confirmed may have been done all the same.
        for operation in commit.operations:
            for field in ("path", "source", "target"):
                path = getattr(operation, field, None)
                if path is not None:
                    self._context.cache.forget(path)

    # --- writing ----------------------------------------------------------------------------------

    def _admit(self, size: int) -> FabricError | None:
        if self._context.inflight_bytes + size > self._settings.proxy_inflight_bytes_max:
            return Busy("the proxy has too many bytes in flight")
        self._context.inflight_bytes += size
        return None

    def _finish(self, size: int, sender: Sender, message: Message, payload: Payload | None = None) -> Reply:
        self._context.inflight_bytes -= size
        return Reply(sender, message, payload)

    def _on_put_fragment(
        self, message: PutFragment, sender: Sender, now: float, payload: Payload
    ) -> list[Effect]:
        size = len(payload)
        if size == 0:
            return [Reply(sender, failed(BadRequest("a fragment has at least one byte")))]
        refusal = self._admit(size)
        if refusal is not None:
            return [Reply(sender, failed(refusal))]

        def done(fragment: FragmentRef, epoch: int, now: float) -> list[Effect]:
            return [self._finish(size, sender, Stored(fragment, epoch))]

        def give_up(failure: Failed, now: float) -> list[Effect]:
            return [self._finish(size, sender, failure)]

        deadline = now + message.deadline_ms / 1000
        upload = Upload(self._context, payload, message.checksum, deadline, done, give_up)
        return self._together.add(upload, now)

    def _on_put_object(
        self, message: PutObject, sender: Sender, now: float, payload: Payload
    ) -> list[Effect]:
        size = len(payload)
        refusal = self._admit(size)
        if refusal is not None:
            return [Reply(sender, failed(refusal))]
        deadline = now + message.deadline_ms / 1000

        def done(fragment: FragmentRef, epoch: int, now: float) -> list[Effect]:
            return self._commit_object(message, [fragment], size, sender, deadline, now)

        def give_up(failure: Failed, now: float) -> list[Effect]:
            return [self._finish(size, sender, failure)]

        if size == 0:
            return self._commit_object(message, [], size, sender, deadline, now)
        upload = Upload(self._context, payload, message.checksum, deadline, done, give_up)
        return self._together.add(upload, now)

    def _commit_object(
        self,
        message: PutObject,
        fragments: list[FragmentRef],
        size: int,
        sender: Sender,
        deadline: float,
        now: float,
    ) -> list[Effect]:
        operation = PutOperation(
            message.path,
            fragments,
            message.digest,
            message.attributes,
            message.if_generation,
            message.immutable,
        )
        left_ms = max(1, int((deadline - now) * 1000))

        request = Commit(left_ms, message.operation_id, [operation])

        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            self._after_commit(request, answer)
            aborts: list[Effect] = []
            if isinstance(answer, Failed) and answer.code in _REFUSED:
                aborts = self._context.abort_all(fragments, now)
                if answer.code == FidExpired.code:
                    answer = failed(Unavailable("the lease of the fragment's fid ran out; try again"))
            return [self._finish(size, sender, answer), *aborts]

        return [self._context.calls.start(self._context.master, request, now, on_answer)]

    # --- reading ----------------------------------------------------------------------------------

    def _on_get_fragment(
        self, message: GetFragment, sender: Sender, now: float, payload: Payload | None
    ) -> list[Effect]:
        fragment, size = message.fragment, message.length
        if message.offset + size > fragment.length:
            text = f"bytes {message.offset}+{size} are not all inside a fragment of {fragment.length}"
            return [Reply(sender, failed(BadRange(text)))]
        place = self._place_of(fragment, message)
        if place is not None:
            return [Reply(sender, FragmentData(fragment.fid, message.offset, fragment.checksum, *place), b"")]
        refusal = self._admit(size)
        if refusal is not None:
            return [Reply(sender, failed(refusal))]

        def done(data: FragmentData, payload: Payload, now: float) -> list[Effect]:
            self._keep_place(data, message.near)
            return [self._finish(size, sender, data, payload)]

        def give_up(failure: Failed, now: float) -> list[Effect]:
            return [self._finish(size, sender, failure)]

        deadline = now + message.deadline_ms / 1000
        return Download(
            self._context, fragment, message.offset, size, deadline, done, give_up, message.near
        ).start(now)

    def _place_of(self, fragment: FragmentRef, message: GetFragment | GetObject) -> tuple[str, int] | None:
        """Where the asker can read it."""
        if message.missed:
            self._context.places.forget(fragment.fid)
            return None
        return self._context.places.find(fragment.fid, message.near) if message.near else None

    def _keep_place(self, data: FragmentData, near: str) -> None:
        if data.file:
            self._context.places.keep(data.fid, near, data.file, data.position)

    def _on_get_object(
        self, message: GetObject, sender: Sender, now: float, payload: Payload | None
    ) -> list[Effect]:
        deadline = now + message.deadline_ms / 1000
        cached = self._context.cache.get(message.path, message.offset)
        if cached is not None:
            return self._read_object(message, cached, True, sender, deadline, now)
        return self._open_object(message, sender, deadline, now)

    def _open_object(self, message: GetObject, sender: Sender, deadline: float, now: float) -> list[Effect]:
        refusal = self._admit(_FORWARDED_BYTES)
        if refusal is not None:
            return [Reply(sender, failed(refusal))]
        question = self._context.cache.ask(message.path)

        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            self._context.inflight_bytes -= _FORWARDED_BYTES
            opened = answer if isinstance(answer, Opened) else None
            self._context.cache.answer(question, opened)
            if opened is None:
                return [Reply(sender, answer)]
            return self._read_object(message, opened, False, sender, deadline, now)

        left_ms = max(1, int((deadline - now) * 1000))
        request = Open(left_ms, message.path, message.offset)
        return [self._context.calls.start(self._context.master, request, now, on_answer)]

    def _read_object(
        self,
        message: GetObject,
        opened: Opened,
        from_cache: bool,
        sender: Sender,
        deadline: float,
        now: float,
    ) -> list[Effect]:
        info = opened.info
        if message.offset > info.size:
            text = f"offset {message.offset} is beyond the {info.size} bytes of {info.path}"
            return [Reply(sender, failed(BadRange(text)))]
        wanted = min(message.length, info.size - message.offset)
        located = _locate(opened, message.offset)
        if wanted == 0 or located is None:
            return [Reply(sender, _object_data(opened, message.offset, EMPTY_CHECKSUM), b"")]
        fragment, inside = located
        place = self._place_of(fragment, message)
        if place is not None:
            return [Reply(sender, _object_data(opened, message.offset, fragment.checksum, *place), b"")]
        size = min(wanted, fragment.length - inside)
        refusal = self._admit(size)
        if refusal is not None:
            return [Reply(sender, failed(refusal))]

        def done(data: FragmentData, payload: Payload, now: float) -> list[Effect]:
            self._keep_place(data, message.near)
            answer = _object_data(opened, message.offset, data.checksum, data.file, data.position)
            return [self._finish(size, sender, answer, payload)]

        def give_up(failure: Failed, now: float) -> list[Effect]:
            self._context.cache.forget(message.path)
            if from_cache:
                # The object may have been deleted since: only the master knows.
                self._context.inflight_bytes -= size
                return self._open_object(message, sender, deadline, now)
            return [self._finish(size, sender, failure)]

        return Download(self._context, fragment, inside, size, deadline, done, give_up, message.near).start(
            now
        )


def _operation_bytes(operation: AnyOperation) -> int:
    if not isinstance(operation, PutOperation | AppendOperation):
        return _OPERATION_BYTES
    attributes = sum(len(value) for value in operation.attributes.values())
    return _OPERATION_BYTES + _FRAGMENT_BYTES * len(operation.fragments) + attributes


def _locate(opened: Opened, offset: int) -> tuple[FragmentRef, int] | None:
    """The fragment of the page that contains ``offset``, and the offset inside it."""
    start = opened.start
    for fragment in opened.fragments:
        if start <= offset < start + fragment.length:
            return fragment, offset - start
        start += fragment.length
    return None


def _object_data(opened: Opened, offset: int, checksum: int, file: str = "", position: int = 0) -> ObjectData:
    return ObjectData(
        info=opened.info,
        start=opened.start,
        fragments=opened.fragments,
        more=opened.more,
        offset=offset,
        checksum=checksum,
        file=file,
        position=position,
    )
