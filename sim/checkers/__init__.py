"""One file for each promise, written against the promise and not against the code."""

from __future__ import annotations

from sim.checkers.p01_durable import Durable
from sim.checkers.p02_visible import Visible
from sim.checkers.p03_fids import Fids
from sim.checkers.p04_equal import Equal
from sim.checkers.p05_bytes import Bytes
from sim.checkers.p06_rejoin import Rejoin
from sim.checkers.p07_nothing_lost import NothingLost
from sim.checkers.p08_memory import Memory
from sim.checkers.p09_no_moves import NoMoves
from sim.checkers.p10_freed import Freed
from sim.watcher import Watcher


def all_checkers() -> list[Watcher]:
    """A fresh one of each."""
    return [
        Durable(), Visible(), Fids(), Equal(), Bytes(), Rejoin(), NothingLost(), Memory(), NoMoves(), Freed()
    ]  # fmt: skip
