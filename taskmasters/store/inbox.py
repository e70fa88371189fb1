"""From the bus into the state: a batch is received, applied in one transaction, and only then acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bus import Consumer, Delivery, Message, Producer
from task.codec import DEFAULT_MAX_SIZE, decode
from task.dead import dead_letter
from task.errors import DecodeError, StateDataError, StateError
from task.leases import keep_leases
from task.retry import Backoff
from task.settler import Settler
from task.stats import Stats
from task.task import Task, derive_id
from task.verdict import Action, Verdict

__all__ = ["Arrival", "Fate", "Inbox"]

_log = logging.getLogger("taskbus.inbox")
#: Messages received, applied and acknowledged at a time.
_BATCH = 500
#: Bytes of the largest task read: a done task is its task and a message.
_MAX_SIZE = 2 * DEFAULT_MAX_SIZE
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
        self._held: Sequence[Delivery] = ()
        self._stopping = False
        self._receiving: asyncio.Future[list[Delivery]] | None = None

    @property
    def trouble(self) -> str:
        """What keeps arrivals from being applied; empty if nothing does."""
        return self._trouble or self._settler.trouble

    def stop(self) -> None:
        """Receive no more; what was received is still applied."""
        self._stopping = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def run(self) -> None:
        """Work until ``stop`` or the end of the input. Cancelling it loses nothing.

        Raises:
            StateError: the database cannot be used, and no repetition will mend that.
            OutputClosedError, ClosedError: dead letters cannot be published any more.
        """
        keep = asyncio.create_task(keep_leases(self._consumer, lambda: self._held))
        try:
            while not self._stopping:
                self._receiving = asyncio.ensure_future(self._consumer.receive(_BATCH))
                await asyncio.wait([self._receiving])
                if self._receiving.cancelled():
                    return
                deliveries = self._receiving.result()
                if deliveries:
                    await self._handle(deliveries)
                elif self._consumer.ended:
                    return
        finally:
            keep.cancel()
            if self._receiving is not None:
                self._receiving.cancel()

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        self._held = deliveries
        self.stats.received += len(deliveries)
        verdicts: list[Verdict] = []
        readable: list[tuple[Delivery, Arrival]] = []
        for delivery in deliveries:
            try:
                task = decode(delivery.body, _MAX_SIZE)
            except DecodeError as error:
                verdicts.append(self._dead(delivery, Fate("dead", error.code, str(error)), None))
            else:
                # As the receiver does for a task that came without an id.
                known = task.id or derive_id("message", self._consumer.topic, delivery.id, task.type, task.value)
                readable.append((delivery, Arrival(task, known)))
        fates = await self._applied([arrival for _, arrival in readable])
        for (delivery, arrival), fate in zip(readable, fates, strict=True):
            if fate.code:
                verdicts.append(self._dead(delivery, fate, arrival.task))
            else:
                verdicts.append(Verdict(delivery, Action.FINISH, fate.name, task=arrival.task))
        await self._settler.settle(verdicts)
        self.stats.results.update(verdict.result for verdict in verdicts)
        self._held = ()

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
        _log.warning(
            "a message of %s goes to %s: %s",
            self._consumer.topic,
            self._dead_topic,
            fate.reason,
            extra={
                "event": "dead",
                "code": fate.code,
                "message_id": delivery.id,
                "task_id": task.id if task else None,
            },
        )
        letter = dead_letter(
            delivery,
            topic=self._consumer.topic,
            group=self._consumer.group,
            reason=fate.reason,
            code=fate.code,
            task=task,
        )
        message = Message(self._dead_topic, letter)
        return Verdict(delivery, Action.FINISH, "dead", (message,), 0.0, fate.reason, None, task, fate.code)

    def _lost(self, deliveries: Sequence[Delivery]) -> None:
        self.stats.lease_lost += len(deliveries)
        _log.warning("lost the lease of %d messages; another instance gets them", len(deliveries))
