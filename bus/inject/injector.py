"""Which operation fails, and how: drawn from a seed, counted, and told."""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Collection

__all__ = ["OPERATIONS", "Fault", "Injector"]


class Fault(enum.Enum):
    """What goes wrong. The names are those shown in counts."""

    #: Nothing is done: UnreachableError at once.
    FAILED = "failed"
    #: Nothing is done: UnconfirmedError after a while.
    TIMEOUT = "timeout"
    #: All is done, and the caller is told that it may not be: UnconfirmedError.
    UNKNOWN = "unknown"
    #: Some of it is done, beginning at the first: UnconfirmedError.
    PARTIAL = "partial"
    #: All is done, but late.
    LATE = "late"
    #: The connection breaks and is made again: what was received or held is another delivery now.
    LOST = "lost"


_REFUSED = (Fault.FAILED, Fault.TIMEOUT)
_CHANGES = (*_REFUSED, Fault.UNKNOWN)
_BATCHES = (*_CHANGES, Fault.PARTIAL)
#: The operations of a bus and what may go wrong with each, as far as the contract allows. ``receive`` never raises
#: because the bus went away: it waits.
OPERATIONS: dict[str, tuple[Fault, ...]] = {
    "open": _REFUSED,
    "producer": _REFUSED,
    "consumer": _REFUSED,
    "publish": _BATCHES,
    "finish": _CHANGES,
    "receive": (Fault.LATE, Fault.LOST),
    "ack": _BATCHES,
    "nack": _BATCHES,
    "release": _BATCHES,
    "terminate": _BATCHES,
    "extend": (*_CHANGES, Fault.LOST),
    "depth": _REFUSED,
    "peek": _REFUSED,
    "topics": _REFUSED,
    "groups": _REFUSED,
    "health": _REFUSED,
}


class Injector:
    """Draws the fault of each operation. The same seed and the same order of operations give the same faults.

    ``rate`` is the probability, 0 to 1, that an operation fails; ``wait`` the seconds that one takes which times out
    or comes late; ``operations`` those that may fail. Without a ``seed`` one is drawn.

    Raises:
        ValueError: for a rate, a wait or an operation that cannot be.
    """

    def __init__(
        self,
        *,
        rate: float,
        seed: int | None = None,
        wait: float = 0.1,
        operations: Collection[str] = OPERATIONS.keys(),
    ) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"a rate is a probability from 0 to 1, not {rate}")
        if not 0 <= wait <= 3600:
            raise ValueError(f"a wait is 0 to 3600 seconds, not {wait}")
        unknown = sorted(set(operations) - OPERATIONS.keys())
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such operation; known: {', '.join(OPERATIONS)}")
        self.rate = rate
        self.seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        self.wait = wait
        self._operations = frozenset(operations)
        self._random = random.Random(self.seed)
        #: How often each operation was asked for, and (operation, fault) was injected.
        self.asked: Counter[str] = Counter()
        self.injected: Counter[tuple[str, Fault]] = Counter()

    def draw(self, operation: str, size: int = 1) -> Fault | None:
        """What is to go wrong with ``operation`` on ``size`` messages; ``None``: nothing."""
        if operation not in self._operations:
            return None
        self.asked[operation] += 1
        # Drawn in any case, so that one more message in a batch does not change what comes after it.
        chance, which = self._random.random(), self._random.random()
        if chance >= self.rate:
            return None
        faults = [fault for fault in OPERATIONS[operation] if fault is not Fault.PARTIAL or size > 1]
        fault = faults[int(which * len(faults))]
        self.injected[operation, fault] += 1
        return fault

    def part(self, size: int) -> int:
        """How many of ``size`` messages are done when only some are: at least one, and not all."""
        return self._random.randrange(1, size)

    def counts(self) -> dict[str, int]:
        """What was injected so far, as ``publish-unknown`` → 2, sorted."""
        return {
            f"{operation}-{fault.value}": count for (operation, fault), count in sorted(self.injected.items(), key=str)
        }

    def __str__(self) -> str:
        return f"{self.injected.total()} faults injected into {self.asked.total()} operations (seed {self.seed})"
