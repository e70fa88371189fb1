"""How long to wait before a task is tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

__all__ = ["KINDS", "Backoff"]

#: How delays may grow.
KINDS = ("exponential", "fibonacci", "linear", "fixed")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow from failure to failure. All are seconds.

    ``exponential``: ``first`` × 1, 2, 4, 8 …; ``fibonacci``: ``first`` × 1, 1, 2, 3, 5 …;
    ``linear``: ``first`` × 1, 2, 3, 4 …; ``fixed``: always ``first``.
    None exceeds ``max_delay``. With ``jitter`` the random half of an exponential delay keeps tasks that failed together
    from coming back together: it lies between half of the delay and the whole.

    Raises:
        ValueError: for an unknown kind, or seconds that are negative or not finite.
    """

    kind: str = "exponential"
    first: float = 1.0
    max_delay: float = 900.0
    jitter: bool = True
    rng: Random = field(default_factory=Random, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is none of {', '.join(KINDS)}")
        for name in ("first", "max_delay"):
            seconds = getattr(self, name)
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"{name} must be seconds, zero or more, not {seconds}")

    def delay(self, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th failure, counted from 1."""
        if self.kind == "exponential":
            # A float holds no power of two above this one; the limit is reached long before.
            whole = min(self.max_delay, self.first * 2.0 ** min(max(attempt - 1, 0), 1023))
            return whole / 2 + self.rng.uniform(0, whole / 2) if self.jitter else whole
        if self.kind == "fibonacci":
            return min(self.max_delay, self._fibonacci(attempt))
        if self.kind == "linear":
            return min(self.max_delay, self.first * attempt)
        return min(self.max_delay, self.first)

    def _fibonacci(self, attempt: int) -> float:
        delay, following = self.first, self.first
        # By this many steps every float but zero has outgrown all limits.
        for _ in range(min(attempt, 3100) - 1):
            delay, following = following, delay + following
        return delay
