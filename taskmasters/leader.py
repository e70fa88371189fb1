"""One of several replicas at a time, by an entry in what they share: a row of a database, or a key of a bucket.

The leader beats: it counts up a number in the entry. A replica that has seen the number stand still for a whole lease,
by its own clock, takes over with the next term. A leader that could not beat for two thirds of a lease, by its own
clock, knows that it is none any more. So no two clocks are ever compared.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from task.errors import StateError
from task.task import new_id

__all__ = ["Held", "Leader", "Seat"]

_log = logging.getLogger("taskbus.leader")


class Held(NamedTuple):
    """Who holds a seat. ``holder`` is empty when it has resigned."""

    holder: str
    term: int
    beat: int


class Seat(Protocol):
    """The entry for one election."""

    def change(self, decide: Callable[[Held | None], Held | None]) -> None:
        """Ask ``decide`` what shall stand there instead of what does; None leaves it. Nobody comes in between.

        ``decide`` is asked again if somebody did. Raises StateError; then it may have been done.
        """
        ...


class Leader:
    """An election, seen by one replica. ``lease`` and ``monotonic`` are seconds.

    What the leader does when it has just stopped being one cannot be undone: it must be harmless to repeat.
    """

    def __init__(self, seat: Seat, name: str, lease: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._seat = seat
        self._name = name
        self._lease = lease
        self._monotonic = monotonic
        self._me = new_id()
        self._term = 0
        self._beaten = 0.0
        self._seen: Held | None = None
        self._seen_at = 0.0
        self._won = asyncio.Event()
        #: What keeps the others from being asked; empty if nothing does.
        self.trouble = ""

    @property
    def leads(self) -> bool:
        """Whether this replica is the one, right now."""
        return self._term > 0 and self._monotonic() - self._beaten < self._lease * 2 / 3

    async def elected(self) -> None:
        """Return once this replica leads."""
        while not self.leads:
            self._won.clear()
            await self._won.wait()

    async def run(self) -> None:
        """Beat, or look whether somebody does, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.beat)
            except StateError as error:
                if self.trouble != str(error):
                    self.trouble = str(error)
                    _log.error("cannot ask who leads: %s", error, extra={"event": "leader-unknown"})
            else:
                self.trouble = ""
            if self.leads:
                self._won.set()
            await asyncio.sleep(self._lease / 4)

    def beat(self) -> None:
        """Beat once, or look once. Raises StateError."""
        began = self._monotonic()
        led, term = self._term, 0

        def decide(seen: Held | None) -> Held | None:
            nonlocal term
            wanted = self._wanted(seen, began)
            term = wanted.term if wanted else 0
            return wanted

        self._seat.change(decide)
        self._term, self._beaten = term, began
        if term and term != led:
            _log.info("this replica leads", extra={"event": "leader", "election": self._name, "term": term})
        elif led and not term:
            _log.warning("another replica leads now", extra={"event": "follower", "election": self._name})

    def resign(self) -> None:
        """Let another take over at once. Raises StateError."""
        term, self._term = self._term, 0
        if term:
            self._seat.change(lambda seen: seen._replace(holder="") if seen and seen.holder == self._me else None)

    def _wanted(self, seen: Held | None, now: float) -> Held | None:
        """What shall stand there; None if another leads."""
        if seen is None:
            return Held(self._me, 1, 1)
        if seen.holder == self._me:
            return seen._replace(beat=seen.beat + 1)
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        if seen.holder and now - self._seen_at < self._lease:
            return None
        return Held(self._me, seen.term + 1, seen.beat + 1)
