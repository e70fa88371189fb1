"""Receiving from the embedded bus, and settling."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from functools import partial

from bus.contract import Consumer, Delivery, Message, Producer
from bus.errors import BusError, ClosedError, LeaseLostError
from bus.registry import Clock
from bus.sql import queue
from bus.sql.calls import Claim, Step
from bus.sql.engine import Engine
from bus.sql.membership import Member
from bus.sql.producer import SqlProducer, Store
from bus.sql.topic import later, outgoing

__all__ = ["SqlConsumer"]

#: Settles these, which are ours as far as we know; returns those that turn out to be lost.
_Settle = Callable[[Step, list[Delivery]], list[Delivery]]


class SqlConsumer(Consumer):
    """One member of a group, or a broadcast."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        member: Member,
        clock: Clock,
        forget: Callable[[SqlConsumer], object],
    ) -> None:
        self.topic = member.topic
        self.group = member.group
        self.lease = member.lease / 1e6
        self._engine = engine
        self._store = store
        self._member = member
        self._clock = clock
        self._forget = forget
        #: What was yielded and is not settled.
        self._held: set[Delivery] = set()
        #: What is being settled, and until when.
        self._settling: dict[Delivery, asyncio.Future[list[Delivery]]] = {}
        self._claims: set[Claim] = set()
        self._closed = False
        self._closing = asyncio.Lock()

    async def join(self, epoch: str | None) -> None:
        """Make the group, if it is new."""
        self.epoch = epoch
        await self._engine.write(lambda step: self._member.join(step.tx), durable=True)
        if self.group is None:
            self._engine.renew(self._member)

    @property
    def ended(self) -> bool:
        return self._closed

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        """As :meth:`Consumer.receive`.

        Raises:
            CorruptError, UnauthorisedError: the database can no longer be used, and waiting would not help.
        """
        if self._closed:
            return []
        claim = self._engine.claim(self._member, limit)
        self._claims.add(claim)
        try:
            await asyncio.wait([claim.future], timeout=timeout)
            if not claim.future.done():
                self._engine.withdraw(claim, unwanted=False)
                await asyncio.wait([claim.future])
        except asyncio.CancelledError:
            self._engine.withdraw(claim, unwanted=True)
            claim.future.add_done_callback(partial(self._hand_back, claim))
            raise
        if self._closed:
            return []
        self._claims.discard(claim)
        found = claim.future.result()
        self._held.update(found)
        return found

    def _hand_back(self, claim: Claim, future: asyncio.Future[list[Delivery]]) -> None:
        """What a cancelled ``receive`` had taken goes back to its place; if that fails its lease will end."""
        if self._closed:
            return
        self._claims.discard(claim)
        if future.exception() is None and future.result():
            with contextlib.suppress(ClosedError):
                returned = self._engine.submit(
                    lambda step: queue.give_back(step.tx, self._member, future.result(), None, counted=False),
                    durable=False,
                    topics=(self.topic,),
                )
                returned.add_done_callback(asyncio.Future.exception)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        def settle(step: Step, mine: list[Delivery]) -> list[Delivery]:
            lost = queue.lost(step.tx, self._member, mine)
            queue.acknowledge(step.tx, self._member, mine)
            return lost

        await self._settle(deliveries, settle, durable=True)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        def settle(step: Step, mine: list[Delivery]) -> list[Delivery]:
            lost = queue.lost(step.tx, self._member, mine)
            queue.give_back(step.tx, self._member, mine, ready_at or step.now, counted=True, reason=reason)
            return lost

        ready_at = later(self._clock(), delay) if delay > 0 else None
        await self._settle(deliveries, settle, topics=(self.topic,))

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        def settle(step: Step, mine: list[Delivery]) -> list[Delivery]:
            lost = queue.lost(step.tx, self._member, mine)
            queue.give_back(step.tx, self._member, mine, ready_at, counted=False)
            return lost

        ready_at = later(self._clock(), delay) if delay > 0 else None
        await self._settle(deliveries, settle, topics=(self.topic,))

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        """As :meth:`Consumer.finish`; atomic if ``producer`` publishes to the same file, as lastingly."""
        if not isinstance(producer, SqlProducer) or producer.store != self._store:
            await super().finish(deliveries, messages, producer)
            return
        producer.check(messages)

        def settle(step: Step, mine: list[Delivery]) -> list[Delivery]:
            lost = queue.lost(step.tx, self._member, mine)
            if not lost:
                step.outgoing.extend(ours)
                queue.acknowledge(step.tx, self._member, mine)
            return lost

        ours = outgoing(messages, self._clock())
        await self._settle(deliveries, settle, durable=True, topics={message.topic for message in messages}, whole=True)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        # What is being settled just now is on its way out, not lost.
        mine = [delivery for delivery in self._unsettled(deliveries) if delivery not in self._settling]
        if mine:
            for delivery in await self._engine.write(
                lambda step: queue.extend(step.tx, self._member, mine, step.now), durable=False
            ):
                self._lose(delivery)
        return [delivery for delivery in deliveries if delivery.handle.lost]

    async def close(self) -> None:
        async with self._closing:
            if self._closed:
                return
            self._closed = True
            for claim in self._claims:
                self._engine.withdraw(claim, unwanted=True)
            answers = {claim.future for claim in self._claims}
            if answers or self._settling:
                await asyncio.wait({*answers, *self._settling.values()})
            taken = [delivery for future in answers if future.exception() is None for delivery in future.result()]
            await self._leave([*self._held, *taken])

    async def _leave(self, back: Sequence[Delivery]) -> None:
        self._held.clear()
        self._forget(self)
        if self.group is None:
            self._engine.forget(self._member)
        if back or self.group is None:

            def leave(step: Step) -> None:
                queue.give_back(step.tx, self._member, back, None, counted=False)
                self._member.leave(step.tx)

            # What cannot be handed back now comes back when its lease ends.
            with contextlib.suppress(BusError):
                await self._engine.write(leave, durable=False, topics=(self.topic,))

    async def _settle(
        self,
        deliveries: Sequence[Delivery],
        settle: _Settle,
        *,
        durable: bool = False,
        topics: Collection[str] = (),
        whole: bool = False,
    ) -> None:
        """``whole``: where any is lost none is settled."""
        while self._settling and (others := {self._settling[d] for d in deliveries if d in self._settling}):
            await asyncio.wait(others)
        mine = self._unsettled(deliveries)
        lost = [delivery for delivery in dict.fromkeys(deliveries) if delivery.handle.lost]
        if (mine or (whole and not self._closed)) and not (whole and lost):
            future = self._engine.submit(lambda step: settle(step, mine), durable=durable, topics=topics)
            self._settling.update(dict.fromkeys(mine, future))
            future.add_done_callback(partial(self._settled, mine, whole))
            # The answer arrives at _settled also when our caller is cancelled.
            lost += await asyncio.shield(future)
        if lost:
            ids = ", ".join(delivery.id for delivery in lost[:5]) + (", …" if len(lost) > 5 else "")
            raise LeaseLostError(
                f"{self.topic}: {len(lost)} of {len(deliveries)} messages were delivered again meanwhile, because "
                f"they were not settled or extended within {self.lease:g} s: {ids}",
                deliveries=lost,
                topic=self.topic,
            )

    def _settled(self, mine: list[Delivery], whole: bool, future: asyncio.Future[list[Delivery]]) -> None:
        for delivery in mine:
            del self._settling[delivery]
        if future.exception() is None:
            lost = future.result()
            self._held.difference_update(lost if whole and lost else mine)
            for delivery in lost:
                self._lose(delivery)

    def _unsettled(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return [delivery for delivery in dict.fromkeys(deliveries) if delivery in self._held]

    def _lose(self, delivery: Delivery) -> None:
        self._held.discard(delivery)
        delivery.handle.lost = True
