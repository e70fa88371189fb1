"""Periods of trouble and of quiet, the same for the same seed."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from random import Random

from tests.nemesis.fault import Fault

__all__ = ["Period", "plan"]

#: One of so many periods is quiet.
_ROUND = 4
#: The share of periods with two faults, where these go together.
_TOGETHER = 0.5


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


def plan(seed: int | str, faults: Sequence[Fault], total: float, *, mean: float = 5.0) -> list[Period]:
    """Periods of ``mean`` seconds on average, ``total`` in all.

    One of every four is quiet; in the others one or two of ``faults`` happen, which do not need the same. Each has its
    turn before one comes again.
    """
    dice = Random(seed)
    count = max(1, round(total / mean))
    lengths = [dice.uniform(0.5, 1.5) for _ in range(count)]
    periods: list[Period] = []
    deck: list[Fault] = []
    for number, length in enumerate(lengths):
        if number % _ROUND == 0:
            quiet = number + dice.randrange(_ROUND)
        # A plan that ends within a round may have no quiet period in it, but a fault it has.
        chosen = _deal(dice, faults, deck) if number != quiet or count == 1 else []
        periods.append(Period([fault.name for fault in chosen], length * total / sum(lengths), dice.getrandbits(32)))
    return periods


def _deal(dice: Random, faults: Sequence[Fault], deck: list[Fault]) -> list[Fault]:
    if not deck:
        deck += dice.sample(faults, len(faults))
    if not deck:
        return []
    first = deck.pop()
    fitting = [fault for fault in deck if not fault.needs & first.needs]
    if not fitting or dice.random() >= _TOGETHER:
        return [first]
    deck.remove(fitting[-1])
    return [first, fitting[-1]]
