"""What a mirror decides: whether to ask the upstream, and what to do without its answer.

A tag that is here is in one of three ages.  *Fresh*: the upstream confirmed it lately, and nobody asks.
*Old*: the upstream is asked before it is served.  *Stale*: it could not be asked, and the tag is served
all the same, with a warning, for as long as the operator allows.  Content by digest has no age.

Times are wall clock in milliseconds where they are kept in the store, since several processes share
them, and seconds of any monotonic clock otherwise.
"""

from __future__ import annotations

from collections import OrderedDict

from fabric.driver.registry.mirror.config import FOR_EVER, MirrorTable
from fabric.settings import MIB

MISSING_MAX = 10_000
"""Absent things that are remembered."""

REST_S_MAX = 300.0
"""An upstream that asks for longer (Retry-After) is asked again after this."""

FINISH_BYTES_MAX = 64 * MIB
"""A transfer that nobody waits for any more is brought to its end when no more than this is missing."""


def is_fresh(mirror: MirrorTable, checked_ms: int, now_ms: int) -> bool:
    """Whether a tag confirmed then need not be asked for now.  A time to come was another clock's."""
    return 0 <= now_ms - checked_ms < mirror.tag_fresh_s * 1000


def may_be_served_stale(mirror: MirrorTable, checked_ms: int, now_ms: int) -> bool:
    """Whether a tag confirmed then may be served when the upstream cannot be asked."""
    return mirror.stale_for_s == FOR_EVER or now_ms - checked_ms <= mirror.stale_for_s * 1000


def is_worth_finishing(received: int, size: int) -> bool:
    """Whether a transfer goes on that nobody waits for: when most of it is here, or little is missing."""
    return size - received <= FINISH_BYTES_MAX or received * 2 >= size


class Missing:
    """What an upstream said that it does not have, for a few seconds each."""

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s = fresh_s
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def note(self, name: str, reference: str, now: float) -> None:
        """It is not there."""
        if self._fresh_s <= 0:
            return
        self._until.pop((name, reference), None)
        self._until[name, reference] = now + self._fresh_s
        while self._until and (len(self._until) > MISSING_MAX or next(iter(self._until.values())) <= now):
            self._until.popitem(last=False)

    def has(self, name: str, reference: str, now: float) -> bool:
        """Whether it was not there a moment ago."""
        return self._until.get((name, reference), float("-inf")) > now


class Standing:
    """Whether an upstream answers.  After a failure it is left alone for a while, where that does no harm."""

    def __init__(self, rest_s: float) -> None:
        self._rest_s = rest_s
        self._rests_until = float("-inf")
        self.is_failing = False

    def failed(self, now: float, retry_after_s: float = 0.0) -> bool:
        """It did not answer, or asked to be left alone.  True for the first failure after an answer."""
        is_first = not self.is_failing
        self.is_failing = True
        self._rests_until = now + min(max(self._rest_s, retry_after_s), REST_S_MAX)
        return is_first

    def answered(self) -> bool:
        """It did.  True for the first answer after a failure."""
        is_first = self.is_failing
        self.is_failing = False
        self._rests_until = float("-inf")
        return is_first

    def rests(self, now: float) -> bool:
        """Whether what is here is served without asking."""
        return now < self._rests_until
