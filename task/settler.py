"""Settling: publish what a verdict says, wait for the confirmation, and only then acknowledge."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

import orjson

from bus import (
    BusError,
    ClosedError,
    Consumer,
    Delivery,
    LeaseLostError,
    Message,
    OutputClosedError,
    Producer,
    TooLargeError,
    UnsupportedError,
)
from task.dead import split_dead_letter
from task.stats import Stats
from task.verdict import FINISH, Action, Verdict

__all__ = ["Settler"]

_log = logging.getLogger("taskbus.worker")
#: Seconds before the first and the longest before any further try at a bus that refuses.
_FIRST, _LONGEST = 0.05, 5.0
#: Characters of a message that is cut because the done task does not fit into the bus's size limit.
_CUT = 500
#: Results of verdicts whose message is the task itself, to be done later, and what the bus can do instead.
_LATER = {"retried": Action.NACK, "released": Action.RELEASE}
#: What is kept of a done task that does not fit even so. All of these are texts.
_FRAME = frozenset(("type", "id", "result", "msg", "started", "completed", "ended"))


class Settler:
    """Carries out verdicts, for as long as it takes: a result that was obtained is not given up while we run.

    ``atomic`` says whether ``finish`` of this consumer and producer is; ``lost`` is told of deliveries whose lease had
    gone to somebody else. The dead letter of a verdict with a ``code`` is the first of its messages.
    """

    def __init__(
        self,
        consumer: Consumer,
        producer: Producer,
        stats: Stats,
        *,
        atomic: bool,
        lost: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._consumer = consumer
        self._atomic = atomic
        self._producer = producer
        self._stats = stats
        self._lost = lost
        #: What is wrong with the bus right now, for the health page; empty if nothing.
        self.trouble = ""

    async def settle(self, verdicts: Sequence[Verdict]) -> None:
        """Settle these. Returns when every one is settled or lost.

        Raises:
            OutputClosedError, ClosedError: nothing can be delivered any more.
            TooLargeError: not even a shortened result fits into the bus's limit.
        """
        finish = [verdict for verdict in verdicts if verdict.action is FINISH]
        if finish:
            await self._finish(finish)
        if len(finish) != len(verdicts):
            others = [self._hand_back(verdict) for verdict in verdicts if verdict.action is not FINISH]
            await asyncio.gather(*others)

    async def _finish(self, verdicts: list[Verdict], *, fitted: bool = False) -> None:
        messages = [message for verdict in verdicts for message in verdict.messages]
        deliveries = [verdict.delivery for verdict in verdicts]
        given_up = any(verdict.code for verdict in verdicts)
        published = False

        async def attempt() -> None:
            nonlocal published
            if self._atomic:
                await self._consumer.finish(deliveries, messages, self._producer)
                return
            if messages and not published:
                await self._producer.publish_many(messages)
            # Only what was not confirmed is tried again: a bus that refuses an acknowledgement has the results.
            published = True
            if given_up:
                await self._acknowledge_apart(verdicts)
            else:
                await self._consumer.ack(deliveries)

        try:
            await self._persist(attempt)
        except LeaseLostError as error:
            gone = set(map(id, error.deliveries))
            self._lost(error.deliveries)
            rest = [verdict for verdict in verdicts if id(verdict.delivery) not in gone]
            # With an atomic finish nothing of the call was done. Without one the rest is settled already.
            if rest and self._atomic:
                await self._finish(rest, fitted=fitted)
        except TooLargeError as error:
            if fitted:
                raise
            if len(verdicts) > 1:
                for verdict in verdicts:
                    await self._finish([verdict])
            elif verdicts[0].result in _LATER:
                # With the moment in its meta it does not fit; the bus then delays it for as long as it can.
                verdicts[0].action = _LATER[verdicts[0].result]
                await self._hand_back(verdicts[0])
            else:
                await self._finish([self._fitted(verdicts[0], error)], fitted=True)

    async def _acknowledge_apart(self, verdicts: list[Verdict]) -> None:
        """Tell the bus what was done and what was given up. Raises as :meth:`Consumer.ack` of all of them would."""
        alike: dict[str, list[Delivery]] = {}
        for verdict in verdicts:
            alike.setdefault(verdict.code, []).append(verdict.delivery)
        lost: list[Delivery] = []
        for code, deliveries in alike.items():
            try:
                if code:
                    await self._consumer.terminate(deliveries, reason=code)
                else:
                    await self._consumer.ack(deliveries)
            except LeaseLostError as error:
                lost += error.deliveries
        if lost:
            raise LeaseLostError("the lease on some messages ended before they were settled", deliveries=lost)

    def _fitted(self, verdict: Verdict, error: TooLargeError) -> Verdict:
        """The same verdict in messages that fit: a done task with its text cut, a dead letter in parts."""
        messages: list[Message] = []
        for number, message in enumerate(verdict.messages):
            if len(message.body) <= error.limit:
                messages.append(message)
                continue
            data = orjson.loads(message.body)
            if verdict.code and number == 0:
                pieces = split_dead_letter(
                    verdict.delivery,
                    topic=data["topic"],
                    group=data.get("group"),
                    reason=data["reason"],
                    code=data["code"],
                    task=verdict.task,
                    limit=error.limit,
                )
                messages.extend(Message(message.topic, piece) for piece in pieces)
                continue
            data["msg"] = (
                f"{data['msg'][:_CUT]}… (cut: the done task was {error.size} bytes, the limit is {error.limit})"
            )
            body = orjson.dumps(data)
            if len(body) > error.limit:
                value = "info" if "info" in data else "task"
                data = {key: text[: 2 * _CUT] for key, text in data.items() if key in _FRAME}
                body = orjson.dumps(data | {value: ""})
            messages.append(message._replace(body=body))
        verdict.messages = tuple(messages)
        return verdict

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge what is yet to be done. Returns and raises as :meth:`settle`."""
        try:
            await self._persist(lambda: self._consumer.ack(deliveries))
        except LeaseLostError as error:
            self._lost(error.deliveries)

    async def _hand_back(self, verdict: Verdict) -> None:
        delivery = [verdict.delivery]

        async def attempt() -> None:
            try:
                if verdict.action is Action.NACK:
                    await self._consumer.nack(delivery, delay=verdict.delay, reason=verdict.reason)
                else:
                    await self._consumer.release(delivery, delay=verdict.delay)
            except UnsupportedError:
                await self._consumer.nack(delivery, reason=verdict.reason)

        try:
            await self._persist(attempt)
        except LeaseLostError as error:
            self._lost(error.deliveries)

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it works. What no repetition can mend is raised."""
        delay = _FIRST
        while True:
            try:
                await attempt()
            except (LeaseLostError, TooLargeError, OutputClosedError, ClosedError):
                raise
            except BusError as error:
                self._stats.bus_errors += 1
                level = logging.DEBUG if self.trouble == str(error) else logging.ERROR
                _log.log(level, "cannot deliver results, trying again: %s", error, extra={"event": "settle-failed"})
                self.trouble = str(error)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(_LONGEST, delay * 2)
            else:
                if self.trouble:
                    self.trouble = ""
                    _log.info("results are delivered again", extra={"event": "settle-recovered"})
                return
