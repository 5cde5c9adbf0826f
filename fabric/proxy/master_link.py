"""What the proxy asks its master for by itself: the view of the cluster, and fids.

Both are asked for before they run out, one question of a kind at a time.  A view that nothing
confirmed for ``REFRESH_S`` is refreshed by a snapshot, so a lost publication is noticed within that.
"""

from __future__ import annotations

from fabric.errors import Unavailable
from fabric.node.effects import Effect, Payload
from fabric.proxy.context import Context
from fabric.proxy.upload import Upload
from fabric.wire.codec import failed
from fabric.wire.messages import CatalogChanged, FidLease, GetTopology, LeaseFids, Message, Topology

MASTER_TIMEOUT_MS = 2_000
REFRESH_S = 1.0
"""A view that nothing confirmed for so long is refreshed by a snapshot."""
RETRY_S = 0.1
"""Pause after the master did not answer, or said that our view was stale."""


class MasterLink:
    """Keeps ``context.view``, ``context.fids`` and ``context.cache`` true."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[Upload] = []
        """Uploads that wait for fids; they end at the latest when the question for fids ends."""
        self._asking_fids = False
        self._asking_topology = False
        self._refresh_at = 0.0
        self._lease_at = 0.0

    def start(self, now: float) -> list[Effect]:
        """Learn the cluster and get fids."""
        return self._ask_topology(now) + self._ask_fids(now)

    def on_tick(self, now: float) -> list[Effect]:
        """Ask again for what is due."""
        effects: list[Effect] = []
        if now >= self._refresh_at:
            effects += self._ask_topology(now)
        if now >= self._lease_at:
            self._lease_at = now + REFRESH_S
            if self._context.fids.is_low(now):
                effects += self._ask_fids(now)
        return effects

    def next_deadline(self) -> float:
        """When something is due."""
        return min(self._refresh_at, self._lease_at)

    def hurry_if_stale(self, now: float) -> None:
        """When a replica knew more than our view, refresh it soon."""
        if self._context.stale:
            self._context.stale = False
            self._refresh_at = min(self._refresh_at, now + RETRY_S)

    def start_upload(self, upload: Upload, now: float) -> list[Effect]:
        """Start it now, or when there are fids."""
        effects = upload.start(now)
        if effects is None:
            self._waiting.append(upload)
            return self._ask_fids(now)
        return effects

    def on_published(self, message: object, now: float) -> list[Effect]:
        """Take in a numbered update; what was missed between is made good by a snapshot."""
        if not isinstance(message, Topology | CatalogChanged):
            return []
        view = self._context.view
        if (message.term, message.sequence) <= (view.term, view.sequence):
            return []
        if not view.follows(message.term, message.sequence):
            self._context.cache.clear()
            if isinstance(message, CatalogChanged):
                return self._ask_topology(now)
        if isinstance(message, Topology):
            view.adopt(message)
        else:
            view.sequence = message.sequence
            for path in message.paths:
                self._context.cache.forget(path)
        self._refresh_at = now + REFRESH_S
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

        request = GetTopology(MASTER_TIMEOUT_MS)
        return [self._context.calls.start(self._context.master, request, now, on_answer)]

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
            return [effect for upload in waiting for effect in self.start_upload(upload, now)]

        context = self._context
        request = LeaseFids(MASTER_TIMEOUT_MS, context.name, context.settings.fid_range_count)
        return [context.calls.start(context.master, request, now, on_answer)]
