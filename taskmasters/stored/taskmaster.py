"""From one topic through an engine into the store, and from its outbox to the bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy import Connection

from bus import Consumer, Producer
from taskmasters.clock import Clock
from taskmasters.store import Arrival, Fate, Inbox, Relay, Store
from taskmasters.store.relay import Refused

__all__ = ["Beside", "Engine", "StoredTaskmaster"]


class Engine(Protocol):
    """Decides, in transactions. It has no clock, no bus and no chance: the same calls have the same effect."""

    def apply(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Do all of these, whose fates are returned in their order. Doing them again changes nothing."""
        ...

    def refused(self, tx: Connection, refused: Sequence[Refused], now: float) -> None:
        """The bus will never take these messages of the outbox."""
        ...


class Beside(Protocol):
    """What else works on the store, of its own accord."""

    #: What keeps it from its work; empty if nothing does.
    trouble: str
    #: Called when there may be something to send.
    stored: Callable[[], None]

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it must lose nothing."""
        ...

    def stop(self) -> None:
        """Begin nothing more."""
        ...

    def nudge(self) -> None:
        """Something was received."""
        ...

    def statistics(self) -> dict[str, object]:
        """For the status page."""
        ...


class StoredTaskmaster:
    """Works until ``stop``. Several may work on one store."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        consumer: Consumer,
        producer: Producer,
        clock: Clock,
        *,
        dead_topic: str,
        beside: Beside | None = None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self.relay = Relay(store, producer, clock, refused=self._refused)
        self.beside = beside
        if beside is not None:
            beside.stored = self.relay.nudge
        self.inbox = Inbox(consumer, producer, self._apply, dead_topic=dead_topic)

    @property
    def trouble(self) -> str:
        """What keeps it from its work; empty if nothing does."""
        troubles = [self.inbox.trouble, self.relay.trouble, self.beside.trouble if self.beside else ""]
        return "; ".join(dict.fromkeys(trouble for trouble in troubles if trouble))

    def stop(self) -> None:
        """Receive no more; what was received is stored."""
        self.inbox.stop()
        if self.beside is not None:
            self.beside.stop()

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing.

        Raises:
            StateError: the state cannot be used, and no repetition will mend that.
            OutputClosedError, ClosedError: nothing can be published any more.
        """
        parts = [asyncio.ensure_future(self.inbox.run()), asyncio.ensure_future(self.relay.run())]
        inbox, relay = parts
        if self.beside is not None:
            parts.append(asyncio.ensure_future(self.beside.run()))
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if not relay.done():
                self.stop()
                for part in (inbox, *parts[2:]):
                    await part
                self.relay.stop()
            await relay
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _apply(self, arrivals: Sequence[Arrival]) -> Sequence[Fate]:
        now = self._clock.now()
        fates = await self._store.run(lambda tx: self._engine.apply(tx, arrivals, now))
        self.relay.nudge()
        if self.beside is not None:
            self.beside.nudge()
        return fates

    def _refused(self, tx: Connection, refused: Sequence[Refused]) -> None:
        self._engine.refused(tx, refused, self._clock.now())
