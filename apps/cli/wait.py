"""Waiting for the done tasks of tasks just sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from apps.cli.errors import say
from apps.cli.output import print_lines
from bus import Bus, Consumer, UnsupportedError
from bus.units import format_duration
from task.codec import decode
from task.errors import DecodeError
from task.outcome import Result
from task.task import Task

__all__ = ["Waiter"]

_BATCH = 100
#: Ids named when time ran out.
_NAMED = 5


class Waiter:
    """Listens on the done topic from before the first task is sent, so that none is missed."""

    def __init__(self, topic: str, timeout: float | None) -> None:
        self._topic = topic
        self._timeout = timeout
        self._pending: set[str] = set()
        self._consumer: Consumer | None = None

    async def subscribe(self, bus: Bus) -> None:
        """Begin to listen; the bus ends it when it is closed.

        Raises:
            UnsupportedError: if the bus cannot broadcast.
        """
        self._consumer = await bus.consumer(self._topic, None)

    def expect(self, tasks: Iterable[Task]) -> None:
        """Wait for these too."""
        self._pending.update(task.id for task in tasks if task.id)

    async def wait(self) -> int:
        """Print each done task as it comes. Returns the exit code: 0, 1 if one failed, 3 if time ran out.

        Raises:
            UnsupportedError: if none can come.
        """
        if self._consumer is None:
            raise RuntimeError("subscribe comes first")
        code = 0
        loop = asyncio.get_running_loop()
        end = None if self._timeout is None else loop.time() + self._timeout
        while self._pending:
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                return self._late()
            deliveries = await self._consumer.receive(_BATCH, left)
            if not deliveries and self._consumer.ended:
                raise UnsupportedError(f"this bus delivers no done tasks on {self._topic}; send without --wait")
            for delivery in deliveries:
                code = max(code, self._look_at(delivery.body))
            await self._consumer.ack(deliveries)
        return code

    def _look_at(self, body: bytes) -> int:
        try:
            task = decode(body)
        except DecodeError:
            return 0
        if task.id not in self._pending or task.result is None:
            return 0
        self._pending.discard(task.id)
        print_lines([body])
        return 0 if task.result in (Result.COMPLETE, Result.WARN) else 1

    def _late(self) -> int:
        ids = sorted(self._pending)
        named = ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")
        say(
            f"not done within {format_duration(self._timeout or 0)}: {named}; sent and still to be done, "
            f"the result will be on topic {self._topic}"
        )
        return 3
