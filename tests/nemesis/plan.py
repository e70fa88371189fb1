"""Periods of trouble and of quiet, the same for the same seed."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from random import Random

__all__ = ["Period", "plan"]

#: The share of periods in which nothing happens.
_QUIET = 0.25
#: How many faults may come together.
_TOGETHER = 2


class Period:
    """A time in which some faults happen, or none. It begins when it is made known by :meth:`begin`."""

    def __init__(self, faults: Sequence[str], seconds: float, seed: int) -> None:
        #: Names of the faults that happen in it.
        self.faults = tuple(faults)
        #: How long it lasts.
        self.seconds = seconds
        self._seed = seed
        self._ended = threading.Event()
        self._until = float("inf")

    def __repr__(self) -> str:
        return f"{self.seconds:.1f} s {' + '.join(self.faults) or 'quiet'}"

    def dice(self, fault: str) -> Random:
        """The chances of one fault in this period: the same for the same seed, whatever else happens."""
        return Random(f"{self._seed} {fault}")

    def begin(self) -> None:
        """The clock runs from now."""
        self._until = time.monotonic() + self.seconds

    def end(self) -> None:
        """It is over at once."""
        self._ended.set()

    @property
    def left(self) -> float:
        """Seconds until it is over."""
        return 0.0 if self._ended.is_set() else max(0.0, self._until - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether faults must come to an end."""
        return self.left == 0.0

    def sleep(self, seconds: float) -> None:
        """Wait that long, even past the period, unless it is ended."""
        self._ended.wait(seconds)

    def rest(self, seconds: float) -> bool:
        """Wait that long, or until the period is over if that is sooner. Returns whether it is over."""
        self._ended.wait(min(seconds, self.left))
        return self.over


def plan(seed: int, faults: Sequence[str], total: float, *, mean: float = 5.0) -> list[Period]:
    """Periods of ``mean`` seconds on average, ``total`` in all: a quarter of them quiet, the others with one or two of
    ``faults``."""
    dice = Random(seed)
    periods: list[Period] = []
    while total > 0.0:
        seconds = min(total, dice.uniform(0.5, 1.5) * mean)
        quiet = not faults or dice.random() < _QUIET
        chosen = [] if quiet else dice.sample(list(faults), min(len(faults), dice.randint(1, _TOGETHER)))
        periods.append(Period(chosen, seconds, dice.getrandbits(32)))
        total -= seconds
    return periods
