"""Noticing a consumer that has gone deaf: tasks are ready, this instance asks for them, and none comes.

Clients of every broker have had this defect: connected, healthy by their own account, and receiving nothing until
somebody restarts the process. Adapters are tested against it; the watchdog is for what nobody has thought of.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from bus import BusError, Depth
from bus.units import format_duration
from task.stats import Stats

__all__ = ["Watchdog"]

_log = logging.getLogger("taskbus.worker")
#: Looks at the depth in the time after which an instance counts as stalled.
_LOOKS = 4
#: The longest time between two reconnections, unless the first takes longer already.
_LONGEST = 900.0
#: Seconds a bus gets to tell its depth.
_DEPTH_LIMIT = 10.0


class Watchdog:
    """Decides when an instance that receives nothing should reconnect.

    It is stalled when it has been asking for ``after`` seconds (and up to a quarter more, at random, so that the
    instances of a group do not reconnect all at once) while every look found tasks ready, two looks at least. If it
    then receives nothing either, it is stalled again after twice, four times … as long. ``depth`` is asked only while
    nothing is received and nothing is held.
    """

    def __init__(
        self,
        after: float,
        stats: Stats,
        depth: Callable[[], Awaitable[Depth]],
        *,
        clock: Callable[[], float] = monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._after = after
        self._stats = stats
        self._depth = depth
        self._clock = clock
        self._rng = rng or random.Random()
        #: When tasks that do not come were first seen ready, and how many looks ago.
        self._since: float | None = None
        self._looks = 0
        #: Reconnections since anything was received, and for how long to wait for the next one.
        self._tries = 0
        self._patience = 0.0
        self._sentence = ""
        self._received = stats.received

    @property
    def trouble(self) -> str:
        """A sentence for people while the instance is stalled; empty once something was received or nothing is ready.

        May be asked from any thread.
        """
        return self._sentence if self._stats.received == self._received else ""

    async def stalled(self, asking: Callable[[], bool]) -> None:
        """Return when it is time to reconnect. ``asking`` says whether nothing is held and a receive is under way."""
        while True:
            await asyncio.sleep(self._after / _LOOKS)
            if not asking() or self._stats.received != self._received:
                self._flowing()
                continue
            try:
                async with asyncio.timeout(_DEPTH_LIMIT):
                    ready = (await self._depth()).ready
            except (BusError, TimeoutError) as error:
                # A bus that cannot be asked is away, and its adapter reconnects; that is no stall.
                self._since = None
                _log.debug("cannot tell whether tasks are ready: %s", error, extra={"event": "depth-failed"})
                continue
            if asking() and self._stats.received == self._received and self.look(ready):
                return

    def look(self, ready: int) -> bool:
        """Judge what one look found, in which nothing had been received since the last. True: reconnect now."""
        if not ready:
            self._flowing()
            return False
        now = self._clock()
        if self._since is None:
            self._since, self._looks = now, 0
            wait = min(self._after * 2.0**self._tries, max(self._after, _LONGEST))
            self._patience = wait * self._rng.uniform(1.0, 1.25)
        self._looks += 1
        if self._looks < 2 or now - self._since < self._patience:
            return False
        self._tries += 1
        self._stats.stalls += 1
        waited = format_duration(round(now - self._since, 1))
        self._sentence = f"stalled: tasks are ready ({ready}) and none has come for {waited}; reconnecting"
        _log.log(
            logging.WARNING if self._tries == 1 else logging.DEBUG,
            "tasks are ready and none comes; reconnecting",
            extra={"event": "stalled", "ready": ready, "seconds": round(now - self._since, 1), "tries": self._tries},
        )
        self._since = None
        return True

    def _flowing(self) -> None:
        """Something came, or there is nothing that could."""
        if self._tries:
            _log.info("no longer stalled", extra={"event": "stall-over", "tries": self._tries})
        self._received = self._stats.received
        self._since, self._tries, self._sentence = None, 0, ""
