"""The running on-done taskmaster: children published and confirmed, then the done task acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bus import Consumer, Delivery, Message, Producer, TooLargeError
from task.codec import decode
from task.errors import DecodeError, StateError
from task.outcome import Result
from task.retry import Backoff
from task.settler import Settler
from task.stats import Stats
from task.task import Task
from task.verdict import Action, Verdict
from taskmasters.clock import Clock, SystemClock
from taskmasters.on_done.children import Family
from taskmasters.on_done.joins import Arrival, Known, Parts
from taskmasters.receiving import MAX_SIZE, Receiving, arrival_id, dead_verdict

if TYPE_CHECKING:
    from taskmasters.on_done.memory import Memory

__all__ = ["OnDoneTaskmaster"]

_log = logging.getLogger("taskbus.on-done")
#: Seconds between tries at a database that refuses, and between looks for what has waited too long.
_BACKOFF = Backoff("exponential", 0.05, 5.0)
_CLEANING = 10.0


class _Done(NamedTuple):
    """A done task that was received."""

    delivery: Delivery
    task: Task
    id: str
    result: Result
    parts: Parts


class OnDoneTaskmaster:
    """Makes the children of the done tasks of one topic, until ``stop`` or the end of the input.

    ``atomic`` says whether ``finish`` of this consumer with this producer is. Without a ``memory`` rules that wait for
    several done tasks do nothing.
    """

    def __init__(
        self,
        family: Family,
        consumer: Consumer,
        producer: Producer,
        *,
        group: str,
        dead_topic: str,
        atomic: bool,
        memory: Memory | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._memory = memory
        self._clock = clock or SystemClock()
        self._family = family
        self._consumer = consumer
        self._group = group
        self._dead_topic = dead_topic
        #: ``results`` counts done tasks: chained, waiting (for others), repeated, unmatched, unfinished (they have no
        #: result), dead.
        self.stats = Stats()
        #: Tasks made, published and confirmed.
        self.sent = 0
        #: Joins given up because some done task did not come in time.
        self.given_up = 0
        self._state_trouble = ""
        self._settler = _ChildSettler(consumer, producer, self.stats, atomic=atomic, lost=self._lost)
        self._settler.dead = self.dead
        self._receiving = Receiving(consumer, self._handle)

    @property
    def trouble(self) -> str:
        """What keeps children from being published; empty if nothing does."""
        return self._settler.trouble or self._state_trouble

    def use(self, family: Family) -> None:
        """Have the done tasks received from now on judged by these rules."""
        self._family = family

    def stop(self) -> None:
        """Receive no more; what was received is still settled."""
        self._receiving.stop()

    async def run(self) -> None:
        """Work until ``stop`` or the end of the input. Cancelling it loses nothing.

        Raises:
            OutputClosedError, ClosedError: nothing can be published any more.
        """
        await self._receiving.run(self._forget())

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        self.stats.received += len(deliveries)
        read = [self._read(delivery) for delivery in deliveries]
        known = await self._known(read)
        verdicts = [self._judge(done, known.get(done.delivery)) if isinstance(done, _Done) else done for done in read]
        await self._settler.settle(verdicts)
        await self._dealt_with(verdicts, known)
        for verdict in verdicts:
            self.stats.results[verdict.result] += 1
            self.sent += sum(message.topic != self._dead_topic for message in verdict.messages)

    def _read(self, delivery: Delivery) -> _Done | Verdict:
        try:
            parent = decode(delivery.body, MAX_SIZE)
        except DecodeError as error:
            return self.dead(delivery, error.code, str(error), None)
        result = parent.result
        if result is None:
            return Verdict(delivery, Action.FINISH, "unfinished")
        parent_id = arrival_id(parent, delivery, self._consumer.topic)
        parts = self._family.parts(parent, parent_id, result) if self._family.gathers else Parts([], [])
        return _Done(delivery, parent, parent_id, result, parts)

    def _judge(self, done: _Done, known: Known | None) -> Verdict:
        delivery, parent, parent_id, result, parts = done
        if known is not None and known.seen:
            return Verdict(delivery, Action.FINISH, "repeated", task=parent)
        made = self._family.made(parent, parent_id, result, () if known is None else known.joins, self._clock.now())
        messages = tuple(Message(child.topic, child.body, None, child.delay, child.id) for child in made.found)
        problems = [*parts.problems, *made.problems]
        if problems:
            verdict = self.dead(delivery, "rule-failed", "; ".join(problems), parent)
            verdict.messages = (*verdict.messages, *messages)
            return verdict
        word = "chained" if made.matched else "waiting" if parts.found else "unmatched"
        return Verdict(delivery, Action.FINISH, word, messages, task=parent)

    async def _known(self, read: Sequence[_Done | Verdict]) -> dict[Delivery, Known]:
        """What the memory knows of these, which it now remembers. Tried until it works."""
        memory = self._memory
        if memory is None:
            return {}
        done = [each for each in read if isinstance(each, _Done) and (each.parts.found or memory.window)]
        if not done:
            return {}
        arrivals = [Arrival(each.task, each.id, each.parts.found) for each in done]
        failures = 0
        while True:
            try:
                known = await memory.arrive(arrivals, self._clock.now())
            except StateError as error:
                failures += 1
                if self._state_trouble != str(error):
                    self._state_trouble = str(error)
                    _log.error("%s; trying again until it works", error, extra={"event": "state-failed"})
                await asyncio.sleep(_BACKOFF.delay(failures))
            else:
                self._state_trouble = ""
                return dict(zip((each.delivery for each in done), known, strict=True))

    async def _dealt_with(self, verdicts: Sequence[Verdict], known: Mapping[Delivery, Known]) -> None:
        memory = self._memory
        if memory is None:
            return
        dealt = [verdict for verdict in verdicts if verdict.result in ("chained", "waiting", "unmatched")]
        ids = [verdict.task.id for verdict in dealt if verdict.task is not None and verdict.task.id]
        joins = [join for verdict in dealt if verdict.delivery in known for join in known[verdict.delivery].joins]
        try:
            await memory.dealt_with(ids, joins, self._clock.now())
        except StateError as error:
            _log.error("if these done tasks come again their children are made again, with the same ids: %s", error)

    async def _forget(self) -> None:
        """Give up, now and then, what has waited too long."""
        memory = self._memory
        while memory is not None:
            try:
                given_up = await memory.forget(self._family.by_id, self._clock.now())
            except StateError as error:
                _log.warning("cannot look for done tasks that wait in vain: %s", error)
            else:
                self.given_up += len(given_up)
                for rule, key in given_up:
                    _log.warning(
                        "rule %s gives up waiting for all done tasks of %r",
                        rule,
                        key[:200],
                        extra={"event": "join-given-up", "rule": rule, "key": key[:200]},
                    )
            await asyncio.sleep(_CLEANING)

    def dead(self, delivery: Delivery, code: str, reason: str, task: Task | None) -> Verdict:
        """The verdict on a done task that is kept as a dead letter."""
        return dead_verdict(
            delivery,
            self._consumer,
            self._group,
            self._dead_topic,
            code=code,
            reason=reason,
            task=task,
            log=_log,
        )

    def _lost(self, deliveries: Sequence[Delivery]) -> None:
        self.stats.lease_lost += len(deliveries)
        _log.warning("lost the lease of %d done tasks; another instance does them", len(deliveries))


class _ChildSettler(Settler):
    """A child that the bus does not take, being too large, makes its parent a dead letter; its siblings are sent."""

    dead: Callable[[Delivery, str, str, Task | None], Verdict]

    def _fitted(self, verdict: Verdict, error: TooLargeError) -> Verdict:
        fitting = tuple(m for m in verdict.messages if m.id is None or len(m.body) <= error.limit)
        if len(fitting) == len(verdict.messages):
            return super()._fitted(verdict, error)
        dead = self.dead(verdict.delivery, "too-large", f"a child is too large: {error}", verdict.task)
        if any(len(letter.body) > error.limit for letter in dead.messages):
            dead = super()._fitted(dead, error)
        verdict.result = dead.result
        verdict.messages = (*dead.messages, *fitting)
        return verdict
