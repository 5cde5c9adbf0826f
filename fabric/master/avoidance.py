"""Groups that new fragments avoid for a while, because writes to one of their members fail.

A server whose disk hangs goes on with its heartbeats, so its group stays writable, and every write to it
runs into a timeout.  Proxies report that.  Some reports within a short time make the group avoided; when
the time is over it is tried again, and avoided for twice as long if reports come back.  That is placement
only: no epoch changes, and a group is not avoided when no other one is writable.
"""

from __future__ import annotations

from collections import deque

import msgspec

REPORTS = 3
WITHIN_S = 10.0
PAUSE_S_MIN, PAUSE_S_MAX = 5.0, 60.0
CODES = frozenset({"DEADLINE", "DISK_FAILED", "NO_SPACE", "UNAVAILABLE"})
"""Errors that speak against the server, and not against the write."""


class _Avoided(msgspec.Struct):
    until: float
    pause_s: float
    reason: str
    active: bool = True
    """Else it is remembered, for twice the pause if it comes back soon."""


class Avoidance:
    """Which groups to avoid now."""

    def __init__(self) -> None:
        self._reports: dict[str, deque[float]] = {}
        self._avoided: dict[int, _Avoided] = {}

    def on_report(self, server: str, group: int, code: str, now: float) -> bool:
        """A write to this server failed; True when its group is avoided from now on."""
        last = self._avoided.get(group)
        if code not in CODES or (last is not None and last.active):
            return False
        times = self._reports.setdefault(server, deque(maxlen=REPORTS))
        times.append(now)
        if len(times) < REPORTS or now - times[0] > WITHIN_S:
            return False
        times.clear()
        returned = last is not None and now - last.until <= PAUSE_S_MAX
        pause_s = min(2 * last.pause_s, PAUSE_S_MAX) if last is not None and returned else PAUSE_S_MIN
        reason = f"avoided for {pause_s:.0f} s: writes to {server} fail ({code})"
        self._avoided[group] = _Avoided(now + pause_s, pause_s, reason)
        return True

    def on_tick(self, now: float) -> list[int]:
        """Groups that need not be avoided any longer."""
        over = [number for number, group in self._avoided.items() if group.active and group.until <= now]
        for number in over:
            self._avoided[number].active = False
        return over

    def next_deadline(self) -> float | None:
        """When the next pause is over."""
        return min((group.until for group in self._avoided.values() if group.active), default=None)

    def reason(self, group: int) -> str:
        """Why a group is avoided; empty when it is not."""
        found = self._avoided.get(group)
        return found.reason if found is not None and found.active else ""

    def forget(self, group: int) -> None:
        """Its members have begun anew together."""
        self._avoided.pop(group, None)
