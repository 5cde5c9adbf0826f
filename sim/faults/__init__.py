"""Everything that goes wrong, by kind; ``schedule`` says when, ``scene`` to whom it may happen."""

from __future__ import annotations

from sim.faults.schedule import Faults

__all__ = ["Faults"]
