"""The proxy: takes fragments and names from drivers, knows where they go and where they are.

It holds no state that matters: killing it loses what was under way and nothing else.  Its view of the
cluster comes from snapshots and published updates of the master, its fids from leases.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fabric.errors import BadRange, BadRequest, Busy, FabricError, Unavailable
from fabric.node.effects import Effect, Payload, Reply, Sender
from fabric.proxy.context import Context, ignore
from fabric.proxy.download import Download
from fabric.proxy.upload import ABORT_TIMEOUT_MS, Upload
from fabric.settings import Settings
from fabric.wire.codec import failed
from fabric.wire.messages import (
    AbortFragment,
    CatalogChanged,
    Commit,
    Committed,
    Failed,
    FidLease,
    FragmentData,
    FragmentRef,
    GetFragment,
    GetObject,
    GetTopology,
    LeaseFids,
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
    Topology,
)

EMPTY_CHECKSUM = 0x2D06800538D394C2
"""xxh3-64 of no bytes."""
MASTER_TIMEOUT_MS = 2_000
REFRESH_S = 1.0
"""A view that nothing confirmed for so long is refreshed by a snapshot."""
RETRY_S = 0.1
"""Pause after the master did not answer, or said that our view was stale."""

_FORWARDED = (Commit, Stat, Open, ListFragments, ListObjects)


class ProxyRole:
    """A ``Role``.  ``name`` tells proxies apart in the master's log."""

    def __init__(
        self, *, name: str, master: str, settings: Settings, rng: random.Random, version: str = ""
    ) -> None:
        self._name = name
        self._version = version
        self._context = Context(name, master, settings, rng)
        self._settings = settings
        self._waiting: list[Upload] = []
        """Uploads that wait for fids."""
        self._asking_fids = False
        self._asking_topology = False
        self._refresh_at = 0.0
        self._lease_at = 0.0
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
        return self._ask_topology(now) + self._ask_fids(now)

    def receive(
        self, message: object, sender: Sender, now: float, payload: Payload | None = None
    ) -> list[Effect]:
        """Handle a driver's request, a publication, or the answer to one of our own requests."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            return handler(message, sender, now, payload)
        if isinstance(message, Ping):
            return [Reply(sender, Pong("proxy", self._name, self._version))]
        if isinstance(message, Request):
            text = f"a proxy does not answer {type(message).__name__}"
            return [Reply(sender, failed(BadRequest(text)))]
        if sender.route == "published":
            return self._on_published(message, now)
        if isinstance(sender.route, str) and isinstance(message, Message):
            return self._context.calls.on_reply(message, sender, now, payload) + self._after_reply(now)
        return []

    def on_tick(self, now: float) -> list[Effect]:
        """End what ran out of time; refresh the view and the stock of fids."""
        effects = self._context.calls.on_tick(now)
        if now >= self._refresh_at:
            effects += self._ask_topology(now)
        if now >= self._lease_at:
            effects += self._ask_fids_if_low(now)
        return effects

    def next_deadline(self) -> float | None:
        """The earlier of the next call's end and the next refresh."""
        refresh = min(self._refresh_at, self._lease_at)
        call = self._context.calls.next_deadline()
        return refresh if call is None else min(refresh, call)

    # --- the master -------------------------------------------------------------------------------

    def _after_reply(self, now: float) -> list[Effect]:
        if not self._context.stale:
            return []
        self._context.stale = False
        self._refresh_at = min(self._refresh_at, now + RETRY_S)
        return []

    def _ask_topology(self, now: float) -> list[Effect]:
        self._refresh_at = now + REFRESH_S
        if self._asking_topology:
            return []
        self._asking_topology = True

        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            self._asking_topology = False
            if not isinstance(answer, Topology):
                self._refresh_at = now + RETRY_S
                return []
            view = self._context.view
            if (answer.term, answer.sequence) != (view.term, view.sequence):
                self._context.cache.clear()
            view.adopt(answer)
            return []

        return [
            self._context.calls.start(self._context.master, GetTopology(MASTER_TIMEOUT_MS), now, on_answer)
        ]

    def _ask_fids_if_low(self, now: float) -> list[Effect]:
        self._lease_at = now + REFRESH_S
        return self._ask_fids(now) if self._context.fids.is_low(now) else []

    def _ask_fids(self, now: float) -> list[Effect]:
        self._lease_at = now + REFRESH_S
        if self._asking_fids:
            return []
        self._asking_fids = True
        asked_at = now

        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            self._asking_fids = False
            waiting, self._waiting = self._waiting, []
            if not isinstance(answer, FidLease):
                self._lease_at = now + RETRY_S
                refusal = failed(Unavailable("the proxy has no fids; is the master up?"))
                return [effect for upload in waiting for effect in upload.refuse(refusal, now)]
            self._context.fids.add(answer.first, answer.count, answer.lease_ms / 1000, asked_at)
            return [effect for upload in waiting for effect in self._start_upload(upload, now)]

        request = LeaseFids(MASTER_TIMEOUT_MS, self._name, self._settings.fid_range_count)
        return [self._context.calls.start(self._context.master, request, now, on_answer)]

    def _on_published(self, message: object, now: float) -> list[Effect]:
        if not isinstance(message, Topology | CatalogChanged):
            return []
        view = self._context.view
        if not view.follows(message.term, message.sequence):
            # Something was missed, or this is old: a snapshot settles it.
            if (message.term, message.sequence) <= (view.term, view.sequence):
                return []
            self._context.cache.clear()
            if isinstance(message, Topology):
                view.adopt(message)
                return []
            return self._ask_topology(now)
        if isinstance(message, Topology):
            view.adopt(message)
        else:
            view.sequence = message.sequence
            for path in message.paths:
                self._context.cache.forget(path)
        self._refresh_at = now + REFRESH_S
        return []

    def _on_forwarded(
        self, message: Request, sender: Sender, now: float, payload: Payload | None
    ) -> list[Effect]:
        """Names are the master's: pass the question on, and the answer back."""

        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            if isinstance(message, Commit) and isinstance(answer, Committed):
                self._forget_changed(message)
            return [Reply(sender, answer)]

        return [self._context.calls.start(self._context.master, message, now, on_answer)]

    def _forget_changed(self, commit: Commit) -> None:
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

    def _start_upload(self, upload: Upload, now: float) -> list[Effect]:
        effects = upload.start(now)
        if effects is None:
            self._waiting.append(upload)
            return self._ask_fids(now)
        return effects

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
        return self._start_upload(upload, now)

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
        return self._start_upload(
            Upload(self._context, payload, message.checksum, deadline, done, give_up), now
        )

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

        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            self._context.cache.forget(message.path)
            effects: list[Effect] = [self._finish(size, sender, answer)]
            if isinstance(answer, Failed) and not answer.retryable:
                effects += self._abort(fragments, now)
            return effects

        request = Commit(left_ms, message.operation_id, [operation])
        return [self._context.calls.start(self._context.master, request, now, on_answer)]

    def _abort(self, fragments: list[FragmentRef], now: float) -> list[Effect]:
        """The master refused to commit these for good: nobody else can name them."""
        context = self._context
        return [
            context.calls.start(
                node.endpoint, AbortFragment(ABORT_TIMEOUT_MS, fragment.group, fragment.fid), now, ignore
            )
            for fragment in fragments
            for node in context.view.members(fragment.group)
        ]

    # --- reading ----------------------------------------------------------------------------------

    def _on_get_fragment(
        self, message: GetFragment, sender: Sender, now: float, payload: Payload | None
    ) -> list[Effect]:
        fragment, size = message.fragment, message.length
        if message.offset + size > fragment.length:
            text = f"bytes {message.offset}+{size} are not all inside a fragment of {fragment.length}"
            return [Reply(sender, failed(BadRange(text)))]
        refusal = self._admit(size)
        if refusal is not None:
            return [Reply(sender, failed(refusal))]

        def done(data: FragmentData, payload: Payload, now: float) -> list[Effect]:
            return [self._finish(size, sender, data, payload)]

        def give_up(failure: Failed, now: float) -> list[Effect]:
            return [self._finish(size, sender, failure)]

        deadline = now + message.deadline_ms / 1000
        return Download(self._context, fragment, message.offset, size, deadline, done, give_up).start(now)

    def _on_get_object(
        self, message: GetObject, sender: Sender, now: float, payload: Payload | None
    ) -> list[Effect]:
        deadline = now + message.deadline_ms / 1000
        cached = self._context.cache.get(message.path, message.offset)
        if cached is not None:
            return self._read_object(message, cached, True, sender, deadline, now)
        return self._open_object(message, sender, deadline, now)

    def _open_object(self, message: GetObject, sender: Sender, deadline: float, now: float) -> list[Effect]:
        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            if not isinstance(answer, Opened):
                return [Reply(sender, answer)]
            self._context.cache.put(answer)
            return self._read_object(message, answer, False, sender, deadline, now)

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
        size = min(wanted, fragment.length - inside)
        refusal = self._admit(size)
        if refusal is not None:
            return [Reply(sender, failed(refusal))]

        def done(data: FragmentData, payload: Payload, now: float) -> list[Effect]:
            return [self._finish(size, sender, _object_data(opened, message.offset, data.checksum), payload)]

        def give_up(failure: Failed, now: float) -> list[Effect]:
            self._context.cache.forget(message.path)
            if from_cache:
                # The object may have been deleted since: only the master knows.
                self._context.inflight_bytes -= size
                return self._open_object(message, sender, deadline, now)
            return [self._finish(size, sender, failure)]

        return Download(self._context, fragment, inside, size, deadline, done, give_up).start(now)


def _locate(opened: Opened, offset: int) -> tuple[FragmentRef, int] | None:
    """The fragment of the page that contains ``offset``, and the offset inside it."""
    start = opened.start
    for fragment in opened.fragments:
        if start <= offset < start + fragment.length:
            return fragment, offset - start
        start += fragment.length
    return None


def _object_data(opened: Opened, offset: int, checksum: int) -> ObjectData:
    return ObjectData(
        info=opened.info,
        start=opened.start,
        fragments=opened.fragments,
        more=opened.more,
        offset=offset,
        checksum=checksum,
    )
