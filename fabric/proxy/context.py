"""What uploads and downloads of one proxy share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from fabric.node.calls import Calls
from fabric.node.effects import Effect, Payload
from fabric.places import Places
from fabric.proxy.cluster_view import ClusterView
from fabric.proxy.fid_source import FidSource
from fabric.proxy.health import Health
from fabric.proxy.object_cache import ObjectCache
from fabric.proxy.timers import Timers
from fabric.settings import Settings
from fabric.wire.messages import AbortFragment, Failed, FragmentRef, Message, NodeView, ReportFailure

ABORT_TIMEOUT_MS = 5_000

REPORTED = frozenset({"DEADLINE", "UNAVAILABLE", "DISK_FAILED", "BAD_CHECKSUM", "NO_FRAGMENT", "NO_SPACE"})
"""Failures of a replica that the master should hear of."""


class Context:
    """State of a proxy.  It is soft: a new proxy starts with none of it."""

    def __init__(self, name: str, master: str, settings: Settings, rng: random.Random) -> None:
        self.name = name
        self.master = master
        self.settings = settings
        self.rng = rng
        self.calls = Calls(rng)
        self.timers = Timers()
        self.health = Health(settings)
        self.view = ClusterView()
        self.fids = FidSource(low_water_count=settings.fid_range_count // 2)
        self.cache = ObjectCache()
        self.places = Places()
        self.inflight_bytes = 0
        self.pending_bytes: Counter[int] = Counter()
        """Bytes of stores under way, by group."""
        self.outstanding: Counter[str] = Counter()
        """Reads under way, by server."""
        self.stale = False
        """A replica knows more than our view: fetch a snapshot."""

    def store_timeout_ms(self, deadline: float, now: float) -> int:
        """For how long replicas are waited for, when the caller waits until ``deadline``."""
        return max(1, int(min(self.settings.store_timeout_s, deadline - now) * 1000))

    def report(self, server: str, group: int, fid: int, failure: Failed, now: float) -> list[Effect]:
        """Tell the master about a replica's failure, when it is one that says something of the replica."""
        if failure.code not in REPORTED:
            return []
        request = ReportFailure(2_000, self.name, server, group, fid, failure.code, failure.message[:1000])
        return [self.calls.start(self.master, request, now, ignore)]

    def abort(self, nodes: Iterable[NodeView], group: int, fid: int, now: float) -> list[Effect]:
        """Have these replicas make a tombstone for a fid that, for certain, nothing names."""
        request = AbortFragment(ABORT_TIMEOUT_MS, group, fid)
        return [self.calls.start(node.endpoint, request, now, ignore) for node in nodes]

    def abort_all(self, fragments: Iterable[FragmentRef], now: float) -> list[Effect]:
        """Have these, which for certain nothing names, aborted on every replica of their groups."""
        return [
            effect
            for fragment in fragments
            for effect in self.abort(self.view.members(fragment.group), fragment.group, fragment.fid, now)
        ]


def ignore(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
    """For requests whose answer changes nothing."""
    return []
