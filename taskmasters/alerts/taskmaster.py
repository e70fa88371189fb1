"""The running alerts taskmaster: done tasks in, time that passes, notices out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy import Connection

from bus import Consumer, Health, Producer
from task.errors import StateError
from task.retry import Backoff
from taskmasters.alerts.deliver import deliver
from taskmasters.alerts.engine import AlertEngine
from taskmasters.alerts.notifier import Deliver, Notifier, pending
from taskmasters.clock import Clock
from taskmasters.store import Arrival, Fate, Inbox, Store

__all__ = ["AlertsTaskmaster"]

_Apply = Callable[[Connection, Sequence[Arrival], float], list[Fate]]

_log = logging.getLogger("taskbus.alerts")
#: Seconds between looks at what is late or due, and between the times of forgetting.
_LOOK, _CLEANING = 1.0, 60.0
#: Seconds of the shortest wait: a deadline may have passed and yet not be beyond what is known.
_LEAST = 0.1
#: Seconds without a done task after which all there are were heard: what was done while this was down comes first.
_QUIET = 3.0
_BACKOFF = Backoff("exponential", 0.1, 10.0)


class AlertsTaskmaster:
    """Works until ``stop``. ``keep``: seconds for which what was told or done is remembered.

    ``exhausted`` None: nobody tells of tasks that are given up. ``sent``: topic → its consumer.
    """

    def __init__(
        self,
        engine: AlertEngine,
        store: Store,
        producer: Producer,
        clock: Clock,
        *,
        done: Consumer,
        exhausted: Consumer | None,
        sent: Mapping[str, Consumer],
        health: Callable[[], Awaitable[Health]],
        dead_topic: str,
        keep: float,
        tell: Deliver = deliver,
    ) -> None:
        self.engine = engine
        self._store = store
        self._clock = clock
        self._keep = keep
        self._cleaned = clock.now()
        self._trouble = ""
        self._health = health
        #: When a done task came last, and when it was done.
        self._heard = clock.now()
        self._completed = 0.0
        self._stopping = asyncio.Event()
        #: Notices that were not told yet, and tasks with a deadline that are not done; None before the first look.
        self.pending: int | None = None
        self.unfinished: int | None = None

        def inbox(consumer: Consumer, apply: _Apply, concerns: Callable[[Arrival], bool]) -> Inbox:
            return Inbox(consumer, producer, self._applying(apply, concerns), dead_topic=dead_topic)

        def concerns(arrival: Arrival) -> bool:
            self._heard = clock.now()
            completed = arrival.task.completed
            self._completed = self._heard if completed is None else completed.timestamp()
            return engine.concerns(arrival)

        self.inboxes = [inbox(done, engine.done, concerns)]
        if exhausted is not None:
            self.inboxes.append(inbox(exhausted, engine.exhausted, lambda arrival: True))
        for topic, consumer in sent.items():
            self.inboxes.append(inbox(consumer, engine.sent(topic), lambda arrival: True))
        self.notifiers = [Notifier(channel, store, clock, tell) for channel in engine.file.channels]

    @property
    def trouble(self) -> str:
        """What keeps alerts from being heard or told; empty if nothing does."""
        troubles = [self._trouble, *(one.trouble for one in self.inboxes), *(one.trouble for one in self.notifiers)]
        return "; ".join(dict.fromkeys(trouble for trouble in troubles if trouble))

    def stop(self) -> None:
        """Receive no more; what was received is stored, and told after the next start."""
        self._stopping.set()
        for inbox in self.inboxes:
            inbox.stop()
        for notifier in self.notifiers:
            notifier.stop()

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing.

        Raises:
            StateError: the state cannot be used, and no repetition will mend that.
            OutputClosedError, ClosedError: dead letters cannot be published any more.
        """
        runs = [self._ticking(), *(one.run() for one in self.inboxes), *(one.run() for one in self.notifiers)]
        parts = [asyncio.ensure_future(run) for run in runs]
        try:
            running = set(parts)
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _ticking(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            now = self._clock.now()
            try:
                wake = await self._store.run(self._tick_at(now, await self._horizon(now)))
            except StateError as error:
                if not error.transient:
                    raise
                failures += 1
                if self._trouble != str(error):
                    self._trouble = str(error)
                    _log.error("%s; trying again until it works", error, extra={"event": "state-failed"})
                await self._wait(now + _BACKOFF.delay(failures))
                continue
            failures, self._trouble = 0, ""
            await self._wait(now + _LOOK if wake is None else min(max(wake, now + _LEAST), now + _LOOK))

    async def _horizon(self, now: float) -> float:
        """Until when every done task was heard of. A bus that is away tells nothing, which is not the same."""
        quiet = now - self._heard >= _QUIET
        if quiet and not self.inboxes[0].trouble and (await self._health()).ok:
            return now
        return self._completed

    def _tick_at(self, now: float, horizon: float) -> Callable[[Connection], float | None]:
        def tick(tx: Connection) -> float | None:
            more = self.engine.tick(tx, now, horizon)
            if now - self._cleaned >= _CLEANING:
                self.engine.forget(tx, now - self._keep)
                self._cleaned = now
            self.pending, self.unfinished = pending(tx), self.engine.waiting(tx)
            return now if more else self.engine.wake(tx)

        return tick

    def _applying(
        self, apply: _Apply, concerns: Callable[[Arrival], bool]
    ) -> Callable[[Sequence[Arrival]], Awaitable[Sequence[Fate]]]:
        async def applied(arrivals: Sequence[Arrival]) -> Sequence[Fate]:
            # Most done tasks are well: they need no transaction.
            wanted = [arrival for arrival in arrivals if concerns(arrival)]
            if not wanted:
                return [Fate("passed")] * len(arrivals)
            now = self._clock.now()
            fates = iter(await self._store.run(lambda tx: apply(tx, wanted, now)))
            chosen = set(map(id, wanted))
            return [next(fates) if id(arrival) in chosen else Fate("passed") for arrival in arrivals]

        return applied

    async def _wait(self, moment: float) -> None:
        waits = [asyncio.ensure_future(self._stopping.wait()), asyncio.ensure_future(self._clock.wait_until(moment))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
