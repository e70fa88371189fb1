"""Where a taskmaster takes the time from, so that a test or a simulation can run a year in a second."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock", "VirtualClock"]


class Clock(Protocol):
    """A source of time. Moments are seconds since the epoch, UTC."""

    def now(self) -> float:
        """The present moment. May go back, as the clock of a machine may."""
        ...

    async def wait_until(self, moment: float) -> None:
        """Return once :meth:`now` has reached ``moment``. May be cancelled."""
        ...


class SystemClock:
    """The clock of the machine."""

    #: Longest sleep, in seconds: this soon is a clock that was set noticed.
    slice = 1.0

    def now(self) -> float:
        """The present moment."""
        return time.time()

    async def wait_until(self, moment: float) -> None:
        """Sleep in slices until the clock of the machine shows ``moment``, however it was set meanwhile."""
        while (left := moment - time.time()) > 0:  # noqa: ASYNC110 - nothing tells us that time has passed
            await asyncio.sleep(min(left, self.slice))


class VirtualClock:
    """A clock that jumps to whatever moment is waited for."""

    def __init__(self, start: float) -> None:
        self._now = start

    def now(self) -> float:
        """The present moment."""
        return self._now

    def set(self, moment: float) -> None:
        """Make it ``moment``: forward or back."""
        self._now = moment

    async def wait_until(self, moment: float) -> None:
        """Make it ``moment``, unless it is later already, after giving other coroutines their turn."""
        await asyncio.sleep(0)
        self._now = max(self._now, moment)
