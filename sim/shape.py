"""What decides a run: its seed, and how much of what the seed means is done.

A run that fails is made smaller by changing everything here but the seed.
"""

from __future__ import annotations

import shlex

import msgspec


class Shape(msgspec.Struct, frozen=True):
    """One run; the defaults are what a seed alone means."""

    seed: int
    kinds: tuple[str, ...] = ()
    """Kinds of faults; none: the seed chooses."""
    only_faults: tuple[int, ...] | None = None
    """Numbers of the faults that are done; None: all."""
    groups: int = 2
    proxies: int = 2
    clients: int = 4
    operations: int | None = None
    """So many things clients do before healing, all together; None: as many as they find time for."""
    seconds: float | None = None
    """How long faults go on; None: the seed chooses."""
    mutation: str = ""
    """The fabric is broken in this way, see ``sim/mutations.py``."""

    def line(self) -> str:
        """What to type to see it again."""
        parts = [f"python -m sim --seed {self.seed}"]
        if self.mutation:
            parts.append(f"--mutation {shlex.quote(self.mutation)}")
        if self.kinds:
            parts.append(f"--faults {shlex.quote(','.join(self.kinds))}")
        if self.only_faults is not None:
            parts.append(f"--only-faults {','.join(map(str, self.only_faults)) or 'none'}")
        for name, usual in (("groups", 2), ("proxies", 2), ("clients", 4), ("operations", None)):
            if getattr(self, name) != usual:
                parts.append(f"--{name} {getattr(self, name)}")
        if self.seconds is not None:
            parts.append(f"--seconds {self.seconds:g}")
        return " ".join(parts)
