"""The running workflow taskmaster: done tasks and requests in, tasks out, and the clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from bus import Consumer, Producer
from task.errors import StateError
from task.retry import Backoff
from taskmasters.clock import Clock
from taskmasters.cron.scheduler import Firing
from taskmasters.store import Arrival, Fate, Inbox, Relay, Store
from taskmasters.store.relay import Refused
from taskmasters.workflow.book import Book
from taskmasters.workflow.engine import WorkflowEngine

__all__ = ["WorkflowTaskmaster"]

Returned = TypeVar("Returned")
_Apply = Callable[[Connection, Sequence[Arrival], float], list[Fate]]

_log = logging.getLogger("taskbus.workflow")
#: Seconds between looks at what is late and what is to be cancelled; also by other processes.
_LOOK = 1.0
#: Seconds between the times of forgetting.
_CLEANING = 60.0
_BACKOFF = Backoff("exponential", 0.1, 10.0)


class WorkflowTaskmaster:
    """Works until ``stop``. Several may work on one state.

    ``requests`` None takes no requests; ``keep`` is how many seconds runs that ended are kept, 0 for ever.
    """

    def __init__(
        self,
        engine: WorkflowEngine,
        store: Store,
        producer: Producer,
        clock: Clock,
        *,
        done: Consumer,
        requests: Consumer | None,
        dead_topic: Callable[[str], str],
        keep: float,
    ) -> None:
        self.engine = engine
        self._store = store
        self._clock = clock
        self._keep = keep
        self._cleaned = clock.now()
        self._trouble = ""
        self._failures = 0
        self._stopping = asyncio.Event()
        self._next: Book | None = None
        self.relay = Relay(store, producer, clock, refused=self._refused)
        self.done = Inbox(done, producer, self._applying(engine.done), dead_topic=dead_topic(done.topic))
        self.inboxes = [self.done]
        if requests is not None:
            apply = self._applying(engine.requests)
            self.inboxes.append(Inbox(requests, producer, apply, dead_topic=dead_topic(requests.topic)))

    @property
    def trouble(self) -> str:
        """What keeps runs from going on; empty if nothing does."""
        troubles = [self._trouble, self.relay.trouble, *(inbox.trouble for inbox in self.inboxes)]
        return "; ".join(dict.fromkeys(trouble for trouble in troubles if trouble))

    def use(self, book: Book) -> None:
        """Have runs that begin from now on be of these workflows."""
        self._next = book

    def stop(self) -> None:
        """Receive no more; what was received is applied, and what is due is sent."""
        self._stopping.set()
        for inbox in self.inboxes:
            inbox.stop()

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing.

        Raises:
            StateError: the state cannot be used, and no repetition will mend that.
            OutputClosedError, ClosedError: nothing can be published any more.
        """
        relay = asyncio.ensure_future(self.relay.run())
        parts = [asyncio.ensure_future(part) for part in (self._ticking(), *(inbox.run() for inbox in self.inboxes))]
        try:
            await _first_failure([relay, *parts], parts)
            self.relay.stop()
            await relay
        finally:
            for part in (relay, *parts):
                part.cancel()
            await asyncio.gather(relay, *parts, return_exceptions=True)

    async def _ticking(self) -> None:
        while not self._stopping.is_set():
            now = self._clock.now()
            firings: list[Firing] = []
            try:
                if (book := self._next) is not None:
                    await self._store.run(lambda tx, b=book, at=now: self.engine.open(tx, at, b))  # type: ignore[misc]
                    self._next = None
                firings = self.engine.due(now)
                more = await self._store.run(lambda tx, f=firings, at=now: self.engine.tick(tx, f, at))  # type: ignore[misc]
                await self._forget(now)
            except StateError as error:
                if not error.transient:
                    raise
                self._failures += 1
                self.engine.again(firings, now)
                if self._trouble != str(error):
                    self._trouble = str(error)
                    _log.error("%s; trying again until it works", error, extra={"event": "state-failed"})
                await self._wait(now + _BACKOFF.delay(self._failures))
                continue
            self._failures, self._trouble = 0, ""
            if firings:
                self.relay.nudge()
            if not more:
                wake = self.engine.wake
                await self._wait(now + _LOOK if wake is None else min(now + _LOOK, max(wake, now)))

    async def _forget(self, now: float) -> None:
        if not self._keep or now - self._cleaned < _CLEANING:
            return
        # Some at a time: the next look goes on with the rest.
        if not await self._store.run(lambda tx: self.engine.forget(tx, now - self._keep)):
            self._cleaned = now

    async def _wait(self, moment: float) -> None:
        waits = [asyncio.ensure_future(self._stopping.wait()), asyncio.ensure_future(self._clock.wait_until(moment))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _applying(self, apply: _Apply) -> Callable[[Sequence[Arrival]], Awaitable[Sequence[Fate]]]:
        async def applied(arrivals: Sequence[Arrival]) -> Sequence[Fate]:
            now = self._clock.now()
            fates = await self._store.run(lambda tx: apply(tx, arrivals, now))
            self.relay.nudge()
            return fates

        return applied

    def _refused(self, tx: Connection, refused: Sequence[Refused]) -> None:
        self.engine.refused(tx, refused, self._clock.now())


async def _first_failure(watched: Sequence[asyncio.Future[None]], wanted: Sequence[asyncio.Future[None]]) -> None:
    """Return when all of ``wanted`` have ended; raise what one of ``watched`` raised as soon as it did."""
    while not all(future.done() for future in wanted):
        running = [future for future in watched if not future.done()]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for future in watched:
            if future.done():
                future.result()
    for future in wanted:
        future.result()
