"""Counters of one worker application."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["Stats"]


class Stats:
    """What happened since the start. Written by the receiver only; reading from other threads is safe."""

    def __init__(self) -> None:
        self.since = time.time()
        #: Deliveries received.
        self.received = 0
        #: How deliveries were settled: complete, error, alert, warn, dead, retried, released, ignored.
        self.results: Counter[str] = Counter()
        #: Seconds user code ran, and how many times.
        self.seconds = 0.0
        self.runs = 0
        self.lease_lost = 0
        #: Failed attempts to publish or settle; each was tried again.
        self.bus_errors = 0
        #: Tasks that a shutdown cut short; they were handed back.
        self.interrupted = 0
        #: Times the worker reconnected because tasks were ready and none came.
        self.stalls = 0
        #: With a guard: tasks that waited for another, were handed back, were answered without being done, and tasks
        #: whose outcome did not count, as another instance may have begun the same meanwhile.
        self.guard_waits = 0
        self.guard_requeues = 0
        self.guard_repeats = 0
        self.guard_lost = 0
        #: Moments of the monotonic clock; None while there was none.
        self.first_received: float | None = None
        self.last_received: float | None = None
        self.last_settled: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds from the first delivery to the last settlement."""
        if self.first_received is None or self.last_settled is None:
            return 0.0
        return max(0.0, self.last_settled - self.first_received)

    @property
    def done(self) -> int:
        """Tasks that came to an end."""
        results = self.results
        return results["complete"] + results["error"] + results["alert"] + results["warn"]

    @property
    def guard(self) -> dict[str, int]:
        """What the guard did: ``waits``, ``requeues``, ``repeats``, ``lost``."""
        return {name.removeprefix("guard_"): getattr(self, name) for name in _GUARD}

    def snapshot(self) -> dict[str, Any]:
        """What can be added up, as JSON has it."""
        return {"results": dict(self.results), **{name: getattr(self, name) for name in _SUMS}}

    def plus(self, snapshot: Mapping[str, Any]) -> Stats:
        """These counters and those of ``snapshot`` together, as new ones since the same time."""
        total = Stats()
        total.since = self.since
        total.results = self.results + Counter(snapshot["results"])
        for name in _SUMS:
            setattr(total, name, getattr(self, name) + snapshot[name])
        return total


_GUARD = ("guard_waits", "guard_requeues", "guard_repeats", "guard_lost")
_SUMS = ("received", "seconds", "runs", "lease_lost", "bus_errors", "interrupted", "stalls", *_GUARD)
