"""P7: losing any process at any moment loses nothing that was acknowledged.

During faults a read may fail, but never say "not found" of what is there.  After healing every path can be
read, through every proxy.
"""

from __future__ import annotations

from sim.history import PathState
from sim.watcher import Violation, Watcher


class NothingLost(Watcher):
    """Holds reads against the history."""

    def on_read(self, state: PathState, code: str, value: bytes | None, allowed: set[bytes | None]) -> None:
        if code == "NOT_FOUND" and None not in allowed:
            raise Violation("P7", f"{state.path} was acknowledged and is not found")
        if state.strict and code not in ("", "NOT_FOUND"):
            raise Violation("P7", f"{state.path} cannot be read after healing: {code}")
