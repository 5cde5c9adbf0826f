"""How the replicas answer: when a read is slow enough to ask a second one, and which server is sick.

**Hedging.**  A second replica is asked when the first takes longer than nearly all reads did lately (Dean and
Barroso, "The Tail at Scale", 2013).  Few reads are, so it costs little; the share of reads that may be
doubled at once is bounded, so that a fabric that is slow as a whole is not made slower.

**Breaker.**  A server that fails or loses several times in a row is asked last for a while, longer each
time; one success makes it well.  It is never left out: the others may be worse.
"""

from __future__ import annotations

from collections import deque

import msgspec

from fabric.settings import Settings

LATENCIES_KEPT = 512
RECOUNT_EVERY = 64
QUANTILE = 0.99
HEDGES_SHARE = 10
"""One read in so many may be doubled, and one more."""
FAILURES_MAX = 3
PAUSE_S_MIN, PAUSE_S_MAX = 1.0, 30.0


class _Server(msgspec.Struct):
    failures: int = 0
    """In a row."""
    pause_s: float = 0.0
    sick_until: float = 0.0


class Health:
    """What one proxy has seen of the replicas."""

    def __init__(self, settings: Settings) -> None:
        self._min_s = settings.hedge_after_s_min
        self._max_s = settings.hedge_after_s_max
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._since_count = 0
        self._servers: dict[str, _Server] = {}
        self.hedge_after_s = self._max_s
        """How long a read may take before a second replica is asked."""
        self._hedges = 0

    def succeeded(self, server: str, latency_s: float) -> None:
        """A read was answered rightly."""
        self._servers.pop(server, None)
        self._latencies.append(latency_s)
        self._since_count += 1
        if self._since_count >= RECOUNT_EVERY:
            self._since_count = 0
            slow_s = sorted(self._latencies)[int(len(self._latencies) * QUANTILE)]
            self.hedge_after_s = min(self._max_s, max(self._min_s, 2 * slow_s))

    def failed(self, server: str, now: float) -> None:
        """A read was not answered, or so late that another replica was faster."""
        known = self._servers.setdefault(server, _Server())
        known.failures += 1
        if known.failures >= FAILURES_MAX and now >= known.sick_until:
            known.pause_s = min(PAUSE_S_MAX, known.pause_s * 2 or PAUSE_S_MIN)
            known.sick_until = now + known.pause_s

    def is_sick(self, server: str, now: float) -> bool:
        """Ask the others first."""
        known = self._servers.get(server)
        return known is not None and now < known.sick_until

    def may_hedge(self, reads_under_way: int) -> bool:
        """Whether one more read may be doubled; if so, it counts until ``hedge_ended``."""
        if self._hedges > reads_under_way // HEDGES_SHARE:
            return False
        self._hedges += 1
        return True

    def hedge_ended(self) -> None:
        """A read that was doubled is over."""
        self._hedges -= 1
