"""One fragment on its way to every replica of a group.

    place -> storing (StoreFragment to each member) -> all confirmed -> done(ref)
      ^         | one failed
      |         v
      +---- abort the fid on every member, try another group under a new fid
            | no other group
            v
          failed

The fid of a failed attempt is dead: its members get a tombstone for it, and no answer that arrives
later can bring it back.  A success is reported only when *every* member of the group's current epoch
has confirmed the same length and checksum.

Small ones make their first attempt together, see ``together``.
"""

from __future__ import annotations

from collections.abc import Callable

from fabric.errors import DeadlineExceeded, FabricError, NoWritableGroup, Unavailable, UnknownKind
from fabric.node.effects import Effect, Payload
from fabric.proxy.context import Context
from fabric.proxy.placement import choose_group
from fabric.wire.codec import failed
from fabric.wire.messages import (
    Failed,
    FragmentRef,
    FragmentStored,
    GroupView,
    Message,
    NodeView,
    StoreFragment,
)

ATTEMPTS_MAX = 4

# The fault of the bytes that were sent, not of a replica: another group would say the same.
_CALLERS_FAULT = frozenset({"BAD_CHECKSUM", "TOO_LARGE", "BAD_MESSAGE", "BAD_REQUEST", "MEMORY_GONE"})
_STALE_VIEW = frozenset({"STALE_EPOCH", "NOT_WRITABLE", "UNAVAILABLE"})

Done = Callable[[FragmentRef, int, float], list[Effect]]
GiveUp = Callable[[Failed, float], list[Effect]]


def other_bytes(server: str) -> Failed:
    """What an answer comes to that confirms anything but what was sent."""
    return failed(Unavailable(f"{server} confirmed other bytes than it was sent"))


class Upload:
    """The life of one ``PutFragment`` or of the payload of one ``PutObject``."""

    def __init__(
        self,
        context: Context,
        payload: Payload,
        checksum: int,
        deadline: float,
        done: Done,
        give_up: GiveUp,
        *,
        besides: int = 0,
        target: int = 0,
    ) -> None:
        """``besides``: a group that it is not to go to; ``target``: the only one that it may; 0: any."""
        self._context = context
        self.payload = payload
        self.length = len(payload)
        self.checksum = checksum
        self.deadline = deadline
        self._done = done
        self._give_up = give_up
        self._tried: set[int] = {besides}
        self._target = target
        self._attempts = 0
        self._attempt_fid: int | None = None
        self._group: GroupView | None = None
        self._members: list[NodeView] = []
        """Those that the attempt was sent to, whatever the view says by now."""
        self._missing: set[str] = set()
        self._last_failure: Failed | None = None

    def start(self, now: float) -> list[Effect] | None:
        """Make the first or the next attempt; None when the proxy has no fid to give."""
        context = self._context
        if now >= self.deadline:
            return self._give_up(failed(DeadlineExceeded("the fragment could not be stored in time")), now)
        groups = [
            group
            for group in context.view.writable_groups()
            if group.group not in self._tried and self._target in (0, group.group)
        ]
        group = choose_group(groups, context.pending_bytes, self.length, context.rng)
        if group is None:
            return self._no_group(now)
        fid = context.fids.take(now)
        if fid is None:
            return None
        members = context.view.members(group.group)
        self.begin(fid, group, members)
        self._missing = set(group.members)
        timeout_ms = context.store_timeout_ms(self.deadline, now)
        request = StoreFragment(timeout_ms, group.group, group.epoch, fid, self.checksum)
        return [
            context.calls.start(node.endpoint, request, now, self._confirm(fid, node.server), self.payload)
            for node in members
        ]

    def begin(self, fid: int, group: GroupView, members: list[NodeView]) -> None:
        """An attempt is being made, here or together with others."""
        self._attempts += 1
        self._tried.add(group.group)
        self._attempt_fid, self._group, self._members = fid, group, members
        self._context.pending_bytes[group.group] += self.length

    def stored(self, now: float) -> list[Effect]:
        """Every member has confirmed the attempt."""
        group, fid = self._group, self._attempt_fid
        assert group is not None and fid is not None
        self._end_attempt()
        return self._done(FragmentRef(group.group, fid, self.length, self.checksum), group.epoch, now)

    def refuse(self, failure: Failed, now: float) -> list[Effect]:
        """End it before its first attempt."""
        return self._give_up(failure, now)

    def _confirm(self, fid: int, server: str) -> Callable[[Message, Payload | None, float], list[Effect]]:
        def on_answer(answer: Message, payload: Payload | None, now: float) -> list[Effect]:
            return self._on_answer(fid, server, answer, now)

        return on_answer

    def _on_answer(self, fid: int, server: str, answer: Message, now: float) -> list[Effect]:
        if fid != self._attempt_fid or self._group is None:
            return []  # an answer to an attempt that was given up
        group = self._group
        if answer == FragmentStored(group.group, group.epoch, fid, self.length, self.checksum):
            self._missing.discard(server)
            return [] if self._missing else self.stored(now)
        if not isinstance(answer, Failed):
            answer = other_bytes(server)
        return self.failed(server, answer, now)

    def failed(self, server: str, failure: Failed, now: float) -> list[Effect]:
        """A member has not stored the attempt: abort it, and try elsewhere if that may help."""
        context, group, fid = self._context, self._group, self._attempt_fid
        assert group is not None and fid is not None
        self._end_attempt()
        self._last_failure = failure
        effects = context.abort(self._members, group.group, fid, now)
        if failure.code in _CALLERS_FAULT:
            return effects + self._give_up(failure, now)
        effects += context.report(server, group.group, fid, failure, now)
        if failure.code in _STALE_VIEW:
            context.stale = True
        if failure.code == UnknownKind.code:
            self._tried.discard(group.group)  # it is the message that was too new, not the group that failed
        if self._attempts >= ATTEMPTS_MAX:
            return effects + self._no_group(now)
        again = self.start(now)
        if again is None:
            return effects + self._give_up(
                failed(Unavailable("the proxy has no fids; is the master up?")), now
            )
        return effects + again

    def _end_attempt(self) -> None:
        if self._group is not None:
            self._context.pending_bytes[self._group.group] -= self.length
        self._attempt_fid, self._group = None, None

    def _no_group(self, now: float) -> list[Effect]:
        error: FabricError = NoWritableGroup(self._explain())
        last = self._last_failure
        if last is not None and last.code == "BUSY":
            return self._give_up(last, now)
        self._context.stale = True
        return self._give_up(failed(error), now)

    def _explain(self) -> str:
        view = self._context.view
        if not view.known:
            return "no group can take a write: the proxy has not heard from the master yet"
        text = (
            f"no group can take a write: {len(view.writable_groups())} of {len(view.groups)} groups writable"
        )
        down = [f"{node.server} is {node.state}" for node in view.nodes.values() if node.state != "RW"]
        if down:
            text += "; " + ", ".join(down[:5])
        if self._last_failure is not None:
            text += f"; last failure {self._last_failure.code}: {self._last_failure.message[:300]}"
        return text
