"""What the suite is run against: how to reach the bus under test and how to move its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bus.capabilities import Durability
from bus.contract import Bus
from bus.registry import connect

__all__ = ["ManualClock", "Target"]


class ManualClock:
    """A clock that stands still until it is moved. It begins at the present, as other processes use the real time."""

    def __init__(self) -> None:
        self._now = time.time()
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        with self._lock:
            self._now += seconds

    def catch_up(self) -> None:
        """Go on to the present, where another process may have written its time."""
        with self._lock:
            self._now = max(self._now, time.time())


@dataclass(frozen=True, kw_only=True)
class Target:
    """One bus under test, for the fixture named ``target``. Times are seconds.

    Every test makes topics of its own, so that a broker may be shared by all of them; a finite source needs a new
    ``url`` for each test.
    """

    #: The bus; connecting twice must reach the same messages.
    url: str
    #: What this deployment is meant to have; the adapter must declare exactly this.
    durability: Durability
    #: Given to every connection. ``None`` = the bus keeps its own time: then give ``url`` a lease of a second or two.
    clock: ManualClock | None = None
    #: Makes a connection; called with ``url`` and ``clock=``.
    make: Callable[..., Bus] = connect
    #: How long to wait for what must happen. In real time it must be longer than twice the lease.
    patience: float = 10.0
    #: How long nothing must happen until it is believed that nothing will.
    quiet: float = 0.1
    #: The delay asked for in tests of delays, where time is real.
    delay: float = 1.0
    #: The longest one test may take.
    limit: float = 60.0
    #: Stops the bus's server cleanly and starts it again. ``None`` = it has no server.
    restart: Callable[[], None] | None = None
    #: Kills the bus's server with SIGKILL and starts it again. ``None`` = it has no server.
    kill: Callable[[], None] | None = None

    def connect(self) -> Bus:
        """A new connection, not yet opened."""
        return self.make(self.url, clock=self.clock or time.time)

    def now(self) -> float:
        """The time by which this bus's delays are measured."""
        return self.clock() if self.clock else time.time()
