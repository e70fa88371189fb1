"""Receiving by unary pulls, and settling, with a lease that is fenced on our side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any

from grpc import StatusCode

from bus.contract import Consumer, Delivery
from bus.errors import BusError, ClosedError, LeaseLostError, NoSuchTopicError
from bus.fence import Leased, divide
from bus.pubsub import wire
from bus.pubsub.connection import Connection
from bus.pubsub.options import PubsubOptions
from bus.pubsub.producer import KEY
from bus.pubsub.store import Joined, Store
from bus.pubsub.trouble import refused_ids

__all__ = ["LONGEST_DELAY", "PubsubConsumer"]

_log = logging.getLogger("taskbus.bus")
#: Longest deadline of a message, and so the longest delay of a nack, seconds.
LONGEST_DELAY = 600.0
#: Longest life of one pull, seconds. The emulator serves a pull on after it was cancelled, until about a second before
#: its deadline, and what it gives to nobody is lost for as long as a lease: there a pull lasts 0.3 s.
_PULL, _PULL_EMULATED = 60.0, 1.25
#: Pause after a pull that came back empty at once, and first and longest pause after one that failed.
_EMPTY, _PAUSE, _LONGEST = 0.1, 0.1, 5.0
#: How long closing waits for a pull under way, which may have messages.
_GRACE = 0.5
#: Most messages of one pull, and most ids of one request.
_MOST = 1000


class _Handle(Leased):
    __slots__ = ("ack_id",)

    def __init__(self, ack_id: str, deadline: float) -> None:
        super().__init__(deadline)
        self.ack_id = ack_id


class PubsubConsumer(Consumer):
    """See :class:`bus.Consumer`. A pull asks for what ``receive`` was asked for, and only while it was."""

    def __init__(
        self,
        connection: Connection,
        store: Store,
        options: PubsubOptions,
        topic: str,
        group: str | None,
        forget: Callable[[PubsubConsumer], None],
    ) -> None:
        self.topic, self.group = topic, group
        self.lease = self._lease = options.lease
        #: What keeps messages from coming; empty if nothing does.
        self.trouble = ""
        self._connection, self._store = connection, store
        self._forget = forget
        self._poll = _PULL_EMULATED if options.emulated else _PULL
        #: By how much sooner than the server a lease is taken to have ended.
        self._margin = min(self._lease / 10, 1.0)
        self._joined = Joined("", 0.0, None)
        self._generation = 0
        self._joining = asyncio.Lock()
        self._buffer: deque[Delivery] = deque()
        self._held: dict[_Handle, Delivery] = {}
        self._pulling: asyncio.Task[None] | None = None
        self._failures = 0
        self._event = asyncio.Event()
        self._stopped = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Find or make the subscription. Raises as :meth:`Store.join`."""
        generation, before = self._connection.generation, self._joined
        if self.group is not None:
            self._joined = await self._store.join(self.topic, self.group)
            self.epoch = self._joined.epoch
        elif not before.subscription or not await self._store.listens(self.topic, before.subscription):
            self._joined = await self._store.listen(self.topic)
        self._generation = generation
        now = self._joined
        if before.subscription and (before.subscription, before.epoch) != (now.subscription, now.epoch):
            self._forget_all(before.subscription)

    async def _verify(self) -> None:
        """After the connection had ended: see that the server still is the one it was. Raises as :meth:`Store.join`."""
        async with self._joining:
            if self._generation != self._connection.generation:
                self._store.forget(self.topic)
                await self.join()

    def _forget_all(self, gone: str) -> None:
        """What we hold is of a subscription that was deleted, or of the memory of an emulator: nobody has it now.

        Work on it may go on, but acknowledging it could hit another message by the same id.
        """
        _log.warning(
            "topic %s: the subscription %s was gone, with what it held; there is a new one",
            self.topic,
            gone,
            extra={"event": "subscription-lost"},
        )
        for delivery in (*self._held.values(), *self._buffer):
            delivery.handle.settled = True
        self._held.clear()
        self._buffer.clear()

    @property
    def ended(self) -> bool:
        return self._stopped.is_set()

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        ends = None if timeout is None else monotonic() + timeout
        while not self.ended:
            if stale := self._stale():
                with contextlib.suppress(BusError):  # it comes again when its lease ends
                    await self.release(stale)
                continue
            if self._buffer:
                return self._take(limit)
            if self._pulling is None or self._pulling.done():
                self._pulling = asyncio.create_task(self._pull(limit))
            self._event.clear()
            left = None if ends is None else ends - monotonic()
            if left is not None and left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await self._event.wait()
            except TimeoutError:
                break
        return []

    def _take(self, limit: int) -> list[Delivery]:
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        self._held.update((delivery.handle, delivery) for delivery in taken)
        return taken

    def _stale(self) -> list[Delivery]:
        """What came when nobody asked any more, and waited so long that its lease will soon end: not to be begun."""
        soon = monotonic() + self._lease / 2
        stale = [delivery for delivery in self._buffer if delivery.handle.deadline <= soon]
        if stale:
            self._buffer = deque(delivery for delivery in self._buffer if delivery.handle.deadline > soon)
            self._held.update((delivery.handle, delivery) for delivery in stale)
        return stale

    async def _pull(self, limit: int) -> None:
        """One pull. Whatever comes of it wakes ``receive``; after a failure only when it may be tried again."""
        try:
            pause = await self._ask(limit)
        except ClosedError:
            pause = 0.0
        except NoSuchTopicError:
            pause = await self._rejoin() or _PAUSE
        except BusError as error:
            pause = self._failed(error)
        try:
            if pause:
                await self._rest(pause)
        finally:
            self._event.set()

    async def _ask(self, limit: int) -> float:
        """Ask Pub/Sub, and keep what comes. Returns the pause before the next pull."""
        if self._connection.silent:
            await self._store.probe(self._connection.timeout)
        await self._verify()
        began = monotonic()
        request = wire.PULL.request(subscription=self._joined.subscription, max_messages=min(limit, _MOST))
        answer = await self._connection.call(
            wire.PULL,
            request,
            f"receiving from {self.topic}",
            topic=self.topic,
            timeout=self._poll,
            tries=1,
            quietly=(StatusCode.DEADLINE_EXCEEDED,),
        )
        if answer is not None and answer.received_messages:
            await self._arrived(answer.received_messages)
        elif answer is None and (self._connection.emulated or not self._connection.fresh):
            # The service lets a pull run out when there is nothing, as a dead connection does. The emulator says so.
            await self._store.probe(self._connection.timeout)
        self.trouble, self._failures = "", 0
        return 0.0 if self._buffer or monotonic() - began >= _EMPTY else _EMPTY

    def _failed(self, error: BusError) -> float:
        if not self.trouble:
            _log.warning("topic %s: receives nothing: %s", self.topic, error, extra={"event": "receive-failed"})
        self.trouble = str(error)
        self._failures += 1
        return random.uniform(0.5, 1.0) * min(_LONGEST, _PAUSE * 2.0 ** min(self._failures, 10))

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return

    async def _rejoin(self) -> float:
        """The subscription was not found: make it if it is gone. Returns the pause before the next pull."""
        name = self._joined.subscription
        self._store.forget(self.topic)
        try:
            async with self._joining:
                await self.join()
        except BusError as error:
            return self._failed(error)
        _log.warning(
            "topic %s: the subscription %s was not found; now there is one",
            self.topic,
            name,
            extra={"event": "subscription-missing"},
        )
        return 0.0

    async def _arrived(self, messages: Sequence[Any]) -> None:
        end = monotonic() + self._joined.deadline - self._margin
        if self._joined.deadline != self._lease:
            end = monotonic() + self._lease - self._margin
            lost = await self._change([message.ack_id for message in messages], int(self._lease))
            messages = [message for message in messages if message.ack_id not in lost]
        for received in messages:
            message = received.message
            key = message.ordering_key or message.attributes.get(KEY)
            attempt = max(received.delivery_attempt, 1)
            handle = _Handle(received.ack_id, end)
            self._buffer.append(Delivery(message.data, message.message_id, attempt, key, (), handle))

    async def _change(self, ack_ids: Iterable[str], seconds: int | None) -> set[str]:
        """Acknowledge, or set the deadline to ``seconds`` from now. Returns those which somebody else has.

        Only a subscription with exactly-once delivery tells. Raises as :meth:`Connection.call`.
        """
        lost: set[str] = set()
        left = list(ack_ids)
        while left:
            batch, left = left[:_MOST], left[_MOST:]
            number = 0
            while batch:
                refused = await self._change_batch(batch, seconds)
                lost.update(id for id, why in refused.items() if why.startswith("PERMANENT"))
                batch = [id for id in refused if id not in lost]
                if batch:
                    await asyncio.sleep(random.uniform(0.5, 1.0) * min(_LONGEST, _PAUSE * 2**number))
                    number += 1
        return lost

    async def _change_batch(self, ack_ids: list[str], seconds: int | None) -> dict[str, str]:
        name = self._joined.subscription
        try:
            if seconds is None:
                request = wire.ACKNOWLEDGE.request(subscription=name, ack_ids=ack_ids)
                await self._connection.call(wire.ACKNOWLEDGE, request, f"acknowledging {self.topic}", topic=self.topic)
            else:
                request = wire.MODIFY_ACK_DEADLINE.request(
                    subscription=name, ack_ids=ack_ids, ack_deadline_seconds=seconds
                )
                doing = f"extending leases of {self.topic}"
                await self._connection.call(wire.MODIFY_ACK_DEADLINE, request, doing, topic=self.topic)
        except NoSuchTopicError:
            # The subscription is gone, and the messages with it: nobody else can have them now.
            return {}
        except BusError as error:
            refused = refused_ids(error.__cause__)
            if not refused:
                raise
            return refused
        return {}

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._settle(deliveries, None)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await self._settle(deliveries, math.ceil(min(max(delay, 0.0), LONGEST_DELAY)))

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await self.nack(deliveries, delay=delay)

    async def _settle(self, deliveries: Sequence[Delivery], seconds: int | None) -> None:
        await self._verify()
        ours, lost = divide(deliveries, self._held)
        if ours:
            gone = await self._change((delivery.handle.ack_id for delivery in ours), seconds)
            for delivery in ours:
                handle: _Handle = delivery.handle
                self._held.pop(handle, None)
                if handle.ack_id in gone:
                    handle.lost = True
                    lost.append(delivery)
                else:
                    handle.settled = True
        if lost:
            text = f"topic {self.topic}: the lease on {len(lost)} messages ended before they were settled"
            raise LeaseLostError(text, deliveries=lost, topic=self.topic)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        await self._verify()
        ours, lost = divide(deliveries, self._held)
        if ours:
            end = monotonic() + self._lease - self._margin
            gone = await self._change((delivery.handle.ack_id for delivery in ours), int(self._lease))
            for delivery in ours:
                handle: _Handle = delivery.handle
                if handle.ack_id in gone:
                    handle.lost = True
                    self._held.pop(handle, None)
                    lost.append(delivery)
                else:
                    handle.deadline = end
        return lost

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._stopped.set()
        self._event.set()
        if self._pulling is not None:
            await asyncio.wait({self._pulling}, timeout=_GRACE)
            self._pulling.cancel()
            await asyncio.wait({self._pulling})
        self._held.update((delivery.handle, delivery) for delivery in self._buffer)
        self._buffer.clear()
        try:
            if self.group is None:
                await self._store.leave(self.topic, self._joined.subscription)
            elif self._held:
                await self.release(list(self._held.values()))
        except BusError as error:
            # What cannot be handed back comes back when its lease ends.
            _log.debug("topic %s: closing: %s", self.topic, error, extra={"event": "close-failed"})
        for handle in self._held:
            handle.settled = True
        self._held.clear()
        self._forget(self)
