"""From the bus into the state: a batch is received, applied in one transaction, and only then acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bus import Consumer, Delivery, Producer
from task.codec import decode
from task.errors import DecodeError, StateDataError, StateError
from task.retry import Backoff
from task.settler import Settler
from task.stats import Stats
from task.task import Task
from task.verdict import Action, Verdict
from taskmasters.receiving import MAX_SIZE, Receiving, arrival_id, dead_verdict

__all__ = ["Arrival", "Fate", "Inbox"]

_log = logging.getLogger("taskbus.inbox")
#: Seconds between tries at a database that refuses.
_BACKOFF = Backoff("exponential", 0.05, 5.0)


class Arrival(NamedTuple):
    """A task that came. ``id`` is its own, or, if it came without one, derived from the message."""

    task: Task
    id: str


class Fate(NamedTuple):
    """What became of one arrival: a word to count it by. With a ``code`` it is a dead letter, because of ``reason``."""

    name: str
    code: str = ""
    reason: str = ""


class Inbox:
    """Receives from one topic until ``stop`` or the end of the input.

    ``apply`` does all arrivals of a batch in one transaction and tells their fates. It is called again with the same
    arrivals after a crash or an error, so it must be harmless to repeat.
    """

    def __init__(
        self,
        consumer: Consumer,
        producer: Producer,
        apply: Callable[[Sequence[Arrival]], Awaitable[Sequence[Fate]]],
        *,
        dead_topic: str,
    ) -> None:
        self._consumer = consumer
        self._apply = apply
        self._dead_topic = dead_topic
        #: ``results`` counts arrivals by the name of their fate; ``dead`` are those kept as dead letters.
        self.stats = Stats()
        self._settler = Settler(consumer, producer, self.stats, atomic=False, lost=self._lost)
        self._trouble = ""
        self._receiving = Receiving(consumer, self._handle)

    @property
    def trouble(self) -> str:
        """What keeps arrivals from being applied; empty if nothing does."""
        return self._trouble or self._settler.trouble

    def stop(self) -> None:
        """Receive no more; what was received is still applied."""
        self._receiving.stop()

    async def run(self) -> None:
        """Work until ``stop`` or the end of the input. Cancelling it loses nothing.

        Raises:
            StateError: the database cannot be used, and no repetition will mend that.
            OutputClosedError, ClosedError: dead letters cannot be published any more.
        """
        await self._receiving.run()

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        self.stats.received += len(deliveries)
        verdicts: list[Verdict] = []
        readable: list[tuple[Delivery, Arrival]] = []
        for delivery in deliveries:
            try:
                task = decode(delivery.body, MAX_SIZE)
            except DecodeError as error:
                verdicts.append(self._dead(delivery, Fate("dead", error.code, str(error)), None))
            else:
                known = arrival_id(task, delivery, self._consumer.topic)
                readable.append((delivery, Arrival(task, known)))
        fates = await self._applied([arrival for _, arrival in readable])
        for (delivery, arrival), fate in zip(readable, fates, strict=True):
            if fate.code:
                verdicts.append(self._dead(delivery, fate, arrival.task))
            else:
                verdicts.append(Verdict(delivery, Action.FINISH, fate.name, task=arrival.task))
        await self._settler.settle(verdicts)
        self.stats.results.update(verdict.result for verdict in verdicts)

    async def _applied(self, arrivals: Sequence[Arrival]) -> Sequence[Fate]:
        failures = 0
        while arrivals:
            try:
                fates = await self._apply(arrivals)
            except StateDataError as error:
                if len(arrivals) == 1:
                    return [Fate("dead", "not-stored", str(error))]
                return [fate for arrival in arrivals for fate in await self._applied([arrival])]
            except StateError as error:
                if not error.transient:
                    raise
                failures += 1
                if self._trouble != str(error):
                    self._trouble = str(error)
                    _log.error("%s; trying again until it works", error, extra={"event": "state-failed"})
                await asyncio.sleep(_BACKOFF.delay(failures))
            else:
                if self._trouble:
                    self._trouble = ""
                    _log.info("the state can be used again", extra={"event": "state-recovered"})
                return fates
        return []

    def _dead(self, delivery: Delivery, fate: Fate, task: Task | None) -> Verdict:
        consumer = self._consumer
        return dead_verdict(
            delivery,
            consumer,
            consumer.group,
            self._dead_topic,
            code=fate.code,
            reason=fate.reason,
            task=task,
            log=_log,
        )

    def _lost(self, deliveries: Sequence[Delivery]) -> None:
        self.stats.lease_lost += len(deliveries)
        _log.warning("lost the lease of %d messages; another instance gets them", len(deliveries))
