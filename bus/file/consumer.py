"""The consumers of a file bus."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bus.contract import Consumer, Delivery, Message, Producer
from bus.errors import BusError, ClosedError
from bus.file.group import Group
from bus.file.operations import Ack, Claim, Extend, Finish, GiveBack, Operation
from bus.file.producer import FileProducer
from bus.lines.batcher import Batcher

if TYPE_CHECKING:
    from bus.file.bus import FileBus

__all__ = ["FileConsumer"]

_log = logging.getLogger("taskbus.bus")
#: Seconds between two looks at the files at first, and the factor by which it grows while nothing happens.
_FIRST_POLL, _POLL_GROWTH = 0.01, 1.3
#: Seconds until the next attempt after the first failure to use the files, and at most.
_FIRST_RETRY, _LONGEST_RETRY = 0.1, 5.0


class FileConsumer(Consumer):
    """Claims what is asked for and no more. While there is nothing it looks at the files, ever less often."""

    def __init__(self, bus: FileBus, topic: str, group: str | None, members: Group, lease: float, poll: float) -> None:
        self.topic = topic
        self.group = group
        self.lease = lease
        self.epoch = members.epoch
        self._lease = lease
        self._bus = bus
        self._members = members
        self._operations: Batcher[Operation] = Batcher(self._run)
        #: Claimed by a ``receive`` that was cancelled before it could yield them.
        self._taken: list[Delivery] = []
        self._held: dict[Delivery, None] = {}
        self._claiming: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._failure: BusError | None = None
        self._retry = 0.0
        self._longest_poll = poll
        self._poll = 0.0
        self._wake = asyncio.Event()
        self._slow_down(0.0)

    @property
    def ended(self) -> bool:
        return self._closing is not None

    @property
    def trouble(self) -> str:
        """Why nothing can be received at the moment; empty if nothing is wrong."""
        return str(self._failure) if self._failure is not None else ""

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        """As :meth:`Consumer.receive`.

        Raises:
            CorruptError: the state of the group cannot be read back.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not self.ended:
            self._wake.clear()
            if not self._taken:
                await self._claim(limit)
            if self._taken and not self.ended:
                batch, self._taken = self._taken[:limit], self._taken[limit:]
                self._held.update(dict.fromkeys(batch))
                self._slow_down(0.0)
                return batch
            if self._failure is not None and not self._failure.transient:
                raise self._failure
            left = None if deadline is None else deadline - loop.time()
            if (left is not None and left <= 0) or not await self._sleep(left):
                break
        return []

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._do(Ack(self.topic, deliveries, self._forget))

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        due = self._bus.due(delay)
        await self._do(GiveBack(self.topic, deliveries, self._forget, due=due, count=True, reason=reason))
        self._bus.wake([self.topic])

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        due = self._bus.due(delay)
        await self._do(GiveBack(self.topic, deliveries, self._forget, due=due, count=False))
        self._bus.wake([self.topic])

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        extend = Extend(self.topic, deliveries, self._forget, lease=self._lease)
        await self._do(extend)
        return extend.lost

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        """As :meth:`Consumer.finish`; atomic if ``producer`` is of a file bus on the same directory."""
        if not messages or not isinstance(producer, FileProducer) or producer.root != self._bus.layout.root:
            await super().finish(deliveries, messages, producer)
            return
        producer.check(messages)
        await self._do(Finish(self.topic, deliveries, self._forget, messages))
        self._bus.wake({message.topic for message in messages})

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def wake(self) -> None:
        """There may be something to receive."""
        self._wake.set()

    async def _close(self) -> None:
        self._wake.set()
        if self._claiming is not None:
            await asyncio.wait({self._claiming})
        left = [*self._taken, *self._held]
        try:
            if left:
                await self._operations.submit(GiveBack(self.topic, left, self._forget, due=0.0, count=False))
        except BusError as error:
            _log.warning("%s: %d messages come again only when their lease ends: %s", self.topic, len(left), error)
        await self._operations.drain()
        await self._bus.in_thread(self._members.close)
        self._bus.forget(self)
        self._bus.wake([self.topic])

    async def _do(self, operation: Operation) -> None:
        if self.ended:
            raise ClosedError(f"this consumer of {self.topic} is closed, and has handed back what was not settled")
        await self._operations.submit(operation)
        if operation.error is not None:
            raise operation.error

    async def _run(self, operations: list[Operation]) -> None:
        await self._bus.in_thread(self._members.run, operations)

    async def _claim(self, limit: int) -> None:
        """Claim into ``_taken``, to the end even if the caller is cancelled: what is claimed must not be lost."""
        if self._claiming is None:
            self._claiming = asyncio.create_task(self._run_claim(limit))
        await asyncio.wait({self._claiming})

    async def _run_claim(self, limit: int) -> None:
        claim = Claim(self._members.reader, limit, self._lease)
        try:
            await self._operations.submit(claim)
        except BusError as error:
            self._fail(error)
        else:
            self._failure = None
            self._retry = 0.0
            self._taken += claim.deliveries
        finally:
            self._claiming = None

    def _fail(self, error: BusError) -> None:
        self._failure = error
        self._retry = min(max(self._retry * 2, _FIRST_RETRY), _LONGEST_RETRY)
        _log.warning("%s: nothing can be received, the next attempt is in %.1f s: %s", self.topic, self._retry, error)

    async def _sleep(self, left: float | None) -> bool:
        """Wait until there may be something to claim; False when ``left`` seconds passed."""
        loop = asyncio.get_running_loop()
        deadline = None if left is None else loop.time() + left
        while True:
            pause = self._poll if self._failure is None else self._retry * random.uniform(0.5, 1.0)
            if deadline is not None:
                pause = min(pause, deadline - loop.time())
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                self._slow_down(self._poll * _POLL_GROWTH)
                if deadline is not None and loop.time() >= deadline:
                    return False
                if self._failure is None and not self._members.changed():
                    continue
            return True

    def _slow_down(self, poll: float) -> None:
        self._poll = min(max(poll, _FIRST_POLL), self._longest_poll)

    def _forget(self, delivery: Delivery) -> None:
        self._held.pop(delivery, None)
