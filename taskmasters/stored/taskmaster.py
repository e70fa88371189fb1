"""From one topic through an engine into the store, and from its outbox to the bus."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Connection

from bus import Consumer, Producer
from taskmasters.clock import Clock
from taskmasters.store import Arrival, Fate, Inbox, Relay, Store
from taskmasters.store.relay import Refused

__all__ = ["Engine", "StoredTaskmaster"]


class Engine(Protocol):
    """Decides, in transactions. It has no clock, no bus and no chance: the same calls have the same effect."""

    def apply(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Do all of these, whose fates are returned in their order. Doing them again changes nothing."""
        ...

    def refused(self, tx: Connection, refused: Sequence[Refused], now: float) -> None:
        """The bus will never take these messages of the outbox."""
        ...


class StoredTaskmaster:
    """Works until ``stop``. Several may work on one store."""

    def __init__(
        self, engine: Engine, store: Store, consumer: Consumer, producer: Producer, clock: Clock, *, dead_topic: str
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self.relay = Relay(store, producer, clock, refused=self._refused)
        self.inbox = Inbox(consumer, producer, self._apply, dead_topic=dead_topic)

    @property
    def trouble(self) -> str:
        """What keeps it from its work; empty if nothing does."""
        return "; ".join(dict.fromkeys(trouble for trouble in (self.inbox.trouble, self.relay.trouble) if trouble))

    def stop(self) -> None:
        """Receive no more; what was received is stored."""
        self.inbox.stop()

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing.

        Raises:
            StateError: the state cannot be used, and no repetition will mend that.
            OutputClosedError, ClosedError: nothing can be published any more.
        """
        parts = [asyncio.ensure_future(self.inbox.run()), asyncio.ensure_future(self.relay.run())]
        inbox, relay = parts
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if not relay.done():
                inbox.result()
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
        return fates

    def _refused(self, tx: Connection, refused: Sequence[Refused]) -> None:
        self._engine.refused(tx, refused, self._clock.now())
