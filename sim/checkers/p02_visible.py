"""P2: a failed write is never visible; one of unknown outcome is visible whole or not at all.

A read may see a value that was possible at some moment of it (``history``), and no other value that the
path ever had.  Also: the catalog names only what its writer's client offered, which reads show as P5.
"""

from __future__ import annotations

from sim.history import PathState
from sim.watcher import Violation, Watcher


class Visible(Watcher):
    """Holds reads against the history."""

    def on_read(self, state: PathState, code: str, value: bytes | None, allowed: set[bytes | None]) -> None:
        if code == "" and value not in allowed and value in state.ever:
            text = "shows a value that it cannot have now: refused, replaced or deleted"
            raise Violation("P2", f"{state.path} {text}")
