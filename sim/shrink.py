"""From a run that breaks a promise to the smallest one found that breaks the same.

Tried in turn, again and again until nothing helps: fewer groups, proxies and clients; fewer faults, by
halves, quarters, and at last one by one (the way of Zeller's *ddmin*); fewer operations; a shorter time.  A
smaller run is another run: the same seed gives other delays once something is left out.  So each is tried,
and counts only if it breaks the same promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from sim.run import Result, simulate_shape
from sim.shape import Shape

TRIES_MAX = 400


class Shrinker:
    """One search.  The same run shrinks to the same, unless time is up before."""

    def __init__(
        self,
        failing: Result,
        is_over: Callable[[], bool] = lambda: False,
        tries_max: int = TRIES_MAX,
        run: Callable[[Shape], Result] = simulate_shape,
    ) -> None:
        """``is_over`` is asked before every try.  ``run`` is for tests."""
        assert failing.violation, "a run that keeps its promises cannot be shrunk"
        self.best = failing
        self.tries = 0
        self._is_over = is_over
        self._tries_max = tries_max
        self._run = run

    def shrink(self) -> Result:
        """The smallest run found."""
        before: Shape | None = None
        while before != self.best.shape:
            before = self.best.shape
            for name, least in (("groups", 1), ("proxies", 1), ("clients", 1)):
                self._fewer(name, least)
            self._fewer_faults()
            self._fewer_operations()
            self._shorter()
        return self.best

    def _try(self, **changes: object) -> bool:
        """Is this still a failure of the same kind?  Then it is the best one now."""
        if self.tries >= self._tries_max or self._is_over():
            return False
        shape = msgspec.structs.replace(self.best.shape, **changes)
        if shape == self.best.shape:
            return False
        self.tries += 1
        result = self._run(shape)
        if result.promise != self.best.promise:
            return False
        self.best = result
        return True

    def _fewer(self, name: str, least: int) -> None:
        for count in range(least, getattr(self.best.shape, name)):
            if self._try(**{name: count}):
                return

    def _fewer_faults(self) -> None:
        done = tuple(number for number, _, _ in self.best.faults_done)
        self._try(only_faults=done)
        if self._try(only_faults=()):
            return
        parts = 2
        while len(kept := self._kept()) > 1 or parts == 2:
            for without in _without_each(kept, parts):
                if self._try(only_faults=without):
                    parts = max(2, parts - 1)
                    break
            else:
                if parts >= len(kept):
                    return
                parts = min(len(kept), 2 * parts)

    def _kept(self) -> tuple[int, ...]:
        """Numbers of the faults that the best run has done."""
        return tuple(number for number, _, _ in self.best.faults_done)

    def _fewer_operations(self) -> None:
        """Down to a number below which it does not fail, as far as halving tells."""
        least, enough = 0, self.best.begun
        self._try(operations=enough)
        while enough - least > max(1, enough // 10):
            middle = (least + enough) // 2
            if self._try(operations=middle):
                enough = middle
            else:
                least = middle

    def _shorter(self) -> None:
        seconds = self.best.shape.seconds
        for shorter in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
            if (seconds is None or shorter < seconds) and self._try(seconds=shorter):
                return


def _without_each(numbers: Sequence[int], parts: int) -> Iterator[tuple[int, ...]]:
    """All but one part of them, for each of so many parts."""
    size = -(-len(numbers) // parts) if numbers else 1
    for start in range(0, len(numbers), size):
        yield (*numbers[:start], *numbers[start + size :])
