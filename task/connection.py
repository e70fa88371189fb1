"""Where the tasks of a worker application come from and where its results go, open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Self

from bus import Bus, BusError, BusURL, Consumer, CorruptError, Depth, Producer, connect
from task.retry import Backoff

__all__ = ["Connection"]

_log = logging.getLogger("taskbus.worker")
#: Seconds a connection that brings nothing gets to close in order.
_CLOSE_LIMIT = 5.0


class Connection:
    """The consumer and the producer of one worker application, and the buses they belong to.

    Used as ``async with``; raises :class:`bus.BusError` if one of them cannot be opened.
    """

    source: Bus
    target: Bus
    consumer: Consumer
    producer: Producer

    def __init__(self, source: BusURL, target: BusURL, topic: str, group: str) -> None:
        self._source_url = source
        self._target_url = target
        self._topic = topic
        self._group = group
        #: What is open, in the order of opening.
        self._open: list[Bus | Consumer | Producer] = []

    @property
    def atomic(self) -> bool:
        """Whether results are published and tasks acknowledged in one step."""
        return self.target is self.source and self.source.capabilities.atomic_finish

    async def depth(self) -> Depth:
        """What is pending. Raises BusError."""
        return await self.source.depth(self._topic, self._group)

    async def __aenter__(self) -> Self:
        try:
            await self._connect(None)
        except BaseException:
            await self.close()
            raise
        return self

    async def _connect(self, target: Bus | None) -> None:
        """Open what the tasks come from, and where results go unless ``target`` and its producer are kept."""
        self.source = source = connect(self._source_url)
        await source.open()
        self._open.append(source)
        if target is None:
            self.target = source
            if self._target_url != self._source_url:
                self.target = connect(self._target_url)
                await self.target.open()
                self._open.append(self.target)
            self.producer = await self.target.producer()
            self._open.append(self.producer)
        self.consumer = await source.consumer(self._topic, self._group)
        self._open.append(self.consumer)

    async def reopen(self) -> None:
        """Let go of where the tasks come from, and open it anew, for as long as it takes. Nothing may be held.

        Raises:
            BusError: what trying again cannot mend. CorruptError if message ids began anew meanwhile.
        """
        kept = None if self.target is self.source else self.target
        epoch = self.consumer.epoch
        backoff, attempt = Backoff(max_delay=30.0), 0
        while True:
            attempt += 1
            await self._let_go([] if kept is None else [kept, self.producer])
            try:
                await self._connect(kept)
                break
            except BusError as error:
                if not error.transient:
                    raise
                _log.warning("cannot reconnect, trying again: %s", error, extra={"event": "reconnect-failed"})
                await asyncio.sleep(backoff.delay(attempt))
        if self.consumer.epoch != epoch:
            raise CorruptError(
                f"{self.source.url}: what stores the topic was replaced while it was in use; start again to use it",
                topic=self._topic,
            )

    async def _let_go(self, kept: list[Bus | Producer]) -> None:
        for part in reversed([part for part in self._open if part not in kept]):
            with contextlib.suppress(BusError, TimeoutError):
                async with asyncio.timeout(_CLOSE_LIMIT):
                    await part.close()
            self._open.remove(part)

    async def close(self) -> None:
        """Close everything in the opposite order: what is unsettled is handed back before the output goes."""
        async with contextlib.AsyncExitStack() as stack:
            while self._open:
                stack.push_async_callback(self._open.pop(0).close)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
