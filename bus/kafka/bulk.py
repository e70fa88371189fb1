"""Writing many records: librdkafka reports failures only, and all is confirmed when nothing is left under way.

A report of each message costs as much as to send it. What is asked for while others are under way waits until they
are confirmed, and then goes together.
"""

from __future__ import annotations

import asyncio
from typing import Any

from confluent_kafka import Producer

from bus.errors import BusError
from bus.kafka.client import Client, Failure
from bus.kafka.records import Writes

__all__ = ["Bulk"]

#: Seconds between two looks whether anything is under way: from, to.
_SOON, _LATER = 0.001, 0.004


class _Call(Failure):
    """What one caller waits for."""

    def __init__(self, writes: Writes, doing: str) -> None:
        super().__init__()
        self.writes = writes
        self.doing = doing
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, trouble: Exception | None) -> None:
        """Tell the caller, unless it waits no more."""
        if self.over.done():
            return
        if trouble is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(trouble)


class Bulk(Client):
    """See the module. ``poll`` is to be called now and then while nothing is written."""

    def __init__(self, given: dict[str, Any], where: str, timeout: float) -> None:
        super().__init__({**given, "delivery.report.only.error": True}, where, timeout)
        self._waiting: list[_Call] = []
        self._pump: asyncio.Task[None] | None = None

    async def send(self, writes: Writes, doing: str) -> None:
        """Write these and return when all are confirmed. Raises as :meth:`bus.kafka.sender.Sender.send`."""
        self.start()
        call = _Call(writes, doing)
        self._waiting.append(call)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="kafka bulk")
        await call.over

    def poll(self) -> None:
        """For events such as a token to be renewed. Called on any thread."""
        if (producer := self._producer) is not None:
            producer.poll(0)

    async def _run(self) -> None:
        while self._waiting:
            calls, self._waiting = self._waiting, []
            try:
                await self._write(calls)
            except Exception as error:  # whatever it is, those who wait must hear of it
                for call in calls:
                    call.end(error)

    async def _write(self, calls: list[_Call]) -> None:
        """Write what was asked for by then. Whoever is in trouble is told; the others are not."""
        producer = self.start()
        troubles: dict[_Call, BusError] = {}
        for call in calls:
            try:
                await self._hand_over(producer, call.writes, call.note, call.doing, poll=True)
            except BusError as error:
                troubles[call] = error
        await self._finished(producer)
        for call in calls:
            if call not in troubles and call.error is not None:
                troubles[call] = self._failed(call.error, call.doing, call.topic)
            call.end(troubles.get(call))

    async def _finished(self, producer: Producer) -> None:
        """Return when nothing is under way any more. librdkafka gives up by itself what takes too long."""
        look = _SOON
        producer.poll(0)
        while len(producer):
            if self._fatal is not None:
                producer.purge()  # which is reported
            await asyncio.sleep(look)
            producer.poll(0)
            look = min(2 * look, _LATER)

    async def close(self) -> None:
        """Finish what was asked for and let go. Idempotent."""
        if self._pump is not None:
            await asyncio.wait({self._pump})
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._stop)
