"""Time that nobody sets, for leases and delays of buses whose processes share one machine.

The clock of a machine may be set, by hours if it was wrong, while leases run and messages are delayed: set forward it
would end all of them at once, set back it would keep them for hours. The time since the machine was started is never
set, goes on while it sleeps, and is the same in all its processes. What is added to it, so that it reads much like Unix
time, is decided once and by one process; the others are told by whatever they share.
"""

from __future__ import annotations

import contextlib
import os
import time

__all__ = ["SteadyClock", "start_of_time"]


def start_of_time() -> str | None:
    """Names what the time since the start is counted from: another text after each. None if this system cannot tell."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
    except OSError:
        return None
    # A container may have been given a start of its own, where there is such a thing.
    with contextlib.suppress(OSError):
        boot += f"/{os.stat('/proc/self/ns/time').st_ino}"
    return boot


class SteadyClock:
    """Seconds since the epoch, as the clock of the machine showed them when ``ahead`` was decided, and from then on.

    Called it returns the present. Where the system has no :func:`start_of_time` it is the clock of the machine.
    """

    def __init__(self) -> None:
        self._steady = start_of_time() is not None
        #: Seconds that the clock of the machine was ahead of the time since the start.
        self.ahead = self.present()

    def __call__(self) -> float:
        return self.ahead + time.clock_gettime(time.CLOCK_BOOTTIME) if self._steady else time.time()

    def present(self) -> float:
        """What ``ahead`` would be, decided now."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) if self._steady else 0.0
