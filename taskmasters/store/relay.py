"""From the outbox to the bus: what is due is published, confirmed, and only then marked as sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection

from bus import (
    BadNameError,
    BusError,
    ClosedError,
    Message,
    OutputClosedError,
    Producer,
    TooLargeError,
    UnsupportedError,
)
from task.errors import StateError
from task.retry import Backoff
from taskmasters.clock import Clock
from taskmasters.store import outbox
from taskmasters.store.outbox import Outgoing, Stored
from taskmasters.store.store import Store

__all__ = ["Refused", "Relay"]

_log = logging.getLogger("taskbus.relay")
#: Messages published at a time, and about how many bytes of them.
_BATCH, _BYTES = 500, 16 << 20
#: Seconds between looks at what another process may have put.
_POLL = 1.0
#: Seconds between tries at a topic, or a database, that refuses.
_BACKOFF = Backoff("exponential", 0.1, 10.0)
#: Seconds for which an id that was sent is remembered, and between the times of forgetting.
_RETENTION, _CLEANING = 86400.0, 60.0
#: What no repetition mends: the message itself is wrong for this bus.
_NEVER = (TooLargeError, BadNameError, UnsupportedError)


class Refused(NamedTuple):
    """A message the bus will never take, and why. ``limit``: bytes of the largest it takes, if it is too large."""

    message: Outgoing
    reason: str
    limit: int | None = None


class _Held(NamedTuple):
    """A topic that is not tried before ``until``."""

    until: float
    failures: int


def _ignore(tx: Connection, refused: Sequence[Refused]) -> None:
    """Nobody wants to know; it was logged."""


class Relay:
    """Publishes what is due in the outbox of ``store``, until ``stop``.

    A crash between publishing and marking publishes the same messages again, with the same ids; so do several relays
    on one database. ``refused`` is told, in the transaction that marks them, of messages the bus will never take.
    """

    def __init__(
        self,
        store: Store,
        producer: Producer,
        clock: Clock,
        *,
        refused: Callable[[Connection, Sequence[Refused]], None] = _ignore,
        retention: float = _RETENTION,
    ) -> None:
        self._store = store
        self._producer = producer
        self._clock = clock
        self._tell_refused = refused
        self._retention = retention
        #: Messages published and confirmed, tries that failed, and messages refused for good.
        self.sent = 0
        self.failed = 0
        self.refused = 0
        #: Messages that waited at the last look, due or not; None before it.
        self.waiting: int | None = None
        self._held: dict[str, _Held] = {}
        self._troubles: dict[str, str] = {}
        self._state_failures = 0
        self._published: list[Stored] = []
        self._refused: list[tuple[Stored, Refused]] = []
        self._rows = _BATCH
        self._cleaned = clock.now()
        self._nudged = asyncio.Event()
        self._stopping = False

    @property
    def trouble(self) -> str:
        """What keeps messages from being sent; empty if nothing does."""
        return "; ".join(self._troubles.values())

    def nudge(self) -> None:
        """Something was put that may be due: look now."""
        self._nudged.set()

    def stop(self) -> None:
        """Publish no more than what is being published now."""
        self._stopping = True
        self._nudged.set()

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing.

        Raises:
            OutputClosedError, ClosedError: nothing can be published any more.
            StateError: the database cannot be used, and no repetition will mend that.
        """
        while not self._stopping:
            self._nudged.clear()
            rest = await self.step()
            if rest is not None and not self._stopping:
                await self._wait(rest)
        if self._published or self._refused:
            await self._store.run(partial(self._turn, now=self._clock.now(), limit=0))

    async def step(self) -> float | None:
        """Mark what was published before, and publish what is due now. None if more may be due, else when to look."""
        now = self._clock.now()
        try:
            batch, wake = await self._store.run(partial(self._turn, now=now, limit=self._rows))
        except StateError as error:
            if not error.transient:
                raise
            self._state_failures += 1
            self._note("state", str(error))
            return now + _BACKOFF.delay(self._state_failures)
        self._state_failures = 0
        self._forget_note("state")
        self.sent += len(self._published)
        self._published, self._refused = [], []
        if batch:
            size = sum(len(one.message.body) for one in batch) // len(batch)
            self._rows = max(1, min(_BATCH, _BYTES // max(1, size)))
            await self._publish(batch)
            return None
        moments = [held.until for held in self._held.values()]
        if wake is not None and wake > now:
            moments.append(wake)
        return min([now + _POLL, *(moment for moment in moments if moment > now)])

    def _turn(self, tx: Connection, *, now: float, limit: int) -> tuple[list[Stored], float | None]:
        outbox.sent(tx, self._published, now)
        if self._refused:
            outbox.refuse(tx, [stored for stored, _ in self._refused], now)
            self._tell_refused(tx, [refused for _, refused in self._refused])
        if now - self._cleaned >= _CLEANING:
            self.waiting = outbox.count(tx)
            if outbox.forget(tx, now - self._retention) == 0:
                self._cleaned = now
        if not limit:
            return [], None
        batch = outbox.due(tx, now, limit, [topic for topic, held in self._held.items() if held.until > now])
        return batch, None if batch else outbox.wake(tx)

    async def _publish(self, batch: Sequence[Stored]) -> None:
        topics: dict[str, list[Stored]] = {}
        for stored in batch:
            topics.setdefault(stored.message.topic, []).append(stored)
        try:
            await self._send(batch)
        except (OutputClosedError, ClosedError):
            raise
        except BusError as error:
            if error.transient:
                for topic in topics:
                    self._hold(topic, error)
                return
            # One topic that refuses must not hold up the others.
            for topic, some in topics.items():
                await self._publish_topic(topic, some)
        else:
            for topic in topics:
                self._release(topic)

    async def _publish_topic(self, topic: str, batch: Sequence[Stored]) -> None:
        try:
            await self._send(batch)
        except (OutputClosedError, ClosedError):
            raise
        except _NEVER as error:
            if len(batch) > 1:
                for stored in batch:
                    await self._publish_topic(topic, [stored])
            else:
                self._refuse(batch[0], error)
        except BusError as error:
            self._hold(topic, error)
        else:
            self._release(topic)

    async def _send(self, batch: Sequence[Stored]) -> None:
        messages = [stored.message for stored in batch]
        await self._producer.publish_many([Message(m.topic, m.body, None, 0.0, m.id) for m in messages])
        self._published += batch

    def _refuse(self, stored: Stored, error: BusError) -> None:
        self.refused += 1
        limit = error.limit if isinstance(error, TooLargeError) else None
        self._refused.append((stored, Refused(stored.message, str(error), limit)))
        _log.error(
            "the bus will never take a task, which is given up: %s",
            error,
            extra={"event": "publish-refused", "topic": stored.message.topic, "task_id": stored.message.id},
        )

    def _hold(self, topic: str, error: BusError) -> None:
        self.failed += 1
        failures = self._held[topic].failures + 1 if topic in self._held else 1
        self._held[topic] = _Held(self._clock.now() + _BACKOFF.delay(failures), failures)
        self._note(f"topic {topic}", f"cannot publish to {topic}: {error}")

    def _release(self, topic: str) -> None:
        if self._held.pop(topic, None) is not None:
            self._forget_note(f"topic {topic}")

    def _note(self, key: str, trouble: str) -> None:
        if self._troubles.get(key) != trouble:
            self._troubles[key] = trouble
            _log.error("%s; trying again until it works", trouble, extra={"event": "relay-failed"})

    def _forget_note(self, key: str) -> None:
        if self._troubles.pop(key, None) is not None:
            _log.info("sending again", extra={"event": "relay-recovered"})

    async def _wait(self, moment: float) -> None:
        waits = [asyncio.ensure_future(self._nudged.wait()), asyncio.ensure_future(self._clock.wait_until(moment))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
