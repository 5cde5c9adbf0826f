"""One fragment on its way from whichever replica can give it.

Replicas are tried one after another until one gives bytes whose checksum is the committed one.  When one
is slow, the next is asked beside it, and the first right answer counts.  When none gives a right one, that is
``NO_GOOD_COPY`` with every replica's reason: a fragment that was committed is never reported as absent.
Where a replica was only busy the answer is ``BUSY``: its copy may be good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fabric.errors import (
    BadChecksum,
    Busy,
    DeadlineExceeded,
    DiskFailed,
    FabricError,
    NoGoodCopy,
    Unavailable,
)
from fabric.node.effects import Effect, Payload
from fabric.proxy.context import Context
from fabric.proxy.placement import order_replicas
from fabric.proxy.timers import Timer
from fabric.warmth import warm_replica
from fabric.wire.codec import failed
from fabric.wire.messages import Failed, FragmentData, FragmentRef, Message, NodeView, ReadFragment

SICK = frozenset({DeadlineExceeded.code, Unavailable.code, DiskFailed.code})
"""Failures that speak against a server, not only against one copy."""

Done = Callable[[FragmentData, Payload, float], list[Effect]]
GiveUp = Callable[[Failed, float], list[Effect]]


class Download:
    """The life of one read of one fragment."""

    def __init__(
        self,
        context: Context,
        fragment: FragmentRef,
        offset: int,
        length: int,
        deadline: float,
        done: Done,
        give_up: GiveUp,
        near: str = "",
    ) -> None:
        """``near``: the machine of whoever wants it, if its place will do."""
        self._context = context
        self._near = near
        self._fragment = fragment
        self._offset = offset
        self._length = length
        self._deadline = deadline
        self._done = done
        self._give_up = give_up
        self._left: list[NodeView] = []
        self._reasons: list[str] = []
        self._busy = False
        self._under_way: list[str] = []
        """Servers that have not answered yet."""
        self._hedge: Timer | None = None
        self._hedged = False
        self._over = False

    def start(self, now: float) -> list[Effect]:
        """Ask the first replica."""
        context = self._context
        members = context.view.members(self._fragment.group)
        self._left = order_replicas(
            members,
            context.outstanding,
            context.rng,
            lambda server: context.health.is_sick(server, now),
            self._warm(members) if context.settings.one_warm_copy else "",
        )
        if len(self._left) > 1:
            self._hedge = context.timers.start(now + context.health.hedge_after_s, self._on_slow)
        return self._ask_next(now)

    def _warm(self, members: Sequence[NodeView]) -> str:
        fragment = self._fragment
        return warm_replica(fragment.fid, fragment.length, [member.server for member in members])

    def _on_slow(self, now: float) -> list[Effect]:
        """Ask a second replica beside the first."""
        context = self._context
        if not self._left or not context.health.may_hedge(context.outstanding.total()):
            return []
        self._hedged = True
        return self._ask_next(now)

    def _ask_next(self, now: float) -> list[Effect]:
        context = self._context
        if now >= self._deadline:
            self._reasons.append("out of time")
            self._end()
            return self._give_up(failed(DeadlineExceeded(self._explain())), now)
        if not self._left:
            if self._under_way:
                return []
            context.stale = True
            self._end()
            return self._give_up(failed(self._verdict()), now)
        node = self._left.pop(0)
        self._under_way.append(node.server)
        context.outstanding[node.server] += 1
        timeout_s = min(context.settings.read_timeout_s, self._deadline - now)
        request = ReadFragment(
            max(1, int(timeout_s * 1000)),
            self._fragment.group,
            self._fragment.fid,
            self._offset,
            self._length,
            self._near,
        )

        asked_at = now

        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            return self._on_answer(node, answer, payload, asked_at, now)

        return [context.calls.start(node.endpoint, request, now, on_answer)]

    def _on_answer(
        self, node: NodeView, answer: Message, payload: Payload | None, asked_at: float, now: float
    ) -> list[Effect]:
        context = self._context
        context.outstanding[node.server] -= 1
        self._under_way.remove(node.server)
        if isinstance(answer, FragmentData) and payload is not None and self._is_right(answer, payload):
            if self._over:
                return []
            context.health.succeeded(node.server, now - asked_at)
            for slower in self._under_way:
                context.health.failed(slower, now)
            self._end()
            return self._done(answer, payload, now)
        if not isinstance(answer, Failed):
            answer = failed(BadChecksum("it sent other bytes than were committed"))
        if answer.code in SICK and not self._over:
            context.health.failed(node.server, now)
        effects = context.report(node.server, self._fragment.group, self._fragment.fid, answer, now)
        if self._over:
            return effects
        self._busy = self._busy or answer.code == Busy.code
        self._reasons.append(f"{node.server} ({node.state}): {answer.code}: {answer.message[:200]}")
        return effects + self._ask_next(now)

    def _end(self) -> None:
        self._over = True
        if self._hedge is not None:
            self._hedge.then = None
        if self._hedged:
            self._context.health.hedge_ended()

    def _is_right(self, answer: FragmentData, payload: Payload) -> bool:
        size = 0 if answer.file and self._near else self._length
        if (answer.fid, answer.offset, len(payload)) != (self._fragment.fid, self._offset, size):
            return False
        if not size:
            return answer.checksum == self._fragment.checksum
        whole = self._offset == 0 and self._length == self._fragment.length
        return not whole or answer.checksum == self._fragment.checksum

    def _verdict(self) -> FabricError:
        if not self._context.view.known:
            return Unavailable("the proxy has not heard from the master yet")
        return Busy(self._explain()) if self._busy else NoGoodCopy(self._explain())

    def _explain(self) -> str:
        where = f"fragment {self._fragment.fid} of group {self._fragment.group}"
        if not self._reasons:
            return f"{where}: the group's replicas are not known"
        return f"{where}: no replica gave a good copy: " + "; ".join(self._reasons)
