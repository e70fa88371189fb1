"""Tells what is to be told, each channel by itself, until it is taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, func, select, update

from task.errors import StateError
from task.retry import Backoff
from taskmasters.alerts.channels import Channel
from taskmasters.alerts.deliver import DeliveryError, deliver
from taskmasters.alerts.tables import notices
from taskmasters.clock import Clock
from taskmasters.store import Store
from taskmasters.threads import in_thread

__all__ = ["Deliver", "Notifier", "orphans", "pending", "waiting"]

_log = logging.getLogger("taskbus.alerts")
#: Seconds between tries at a channel that does not take it.
_BACKOFF = Backoff("exponential", 5.0, 900.0)
#: Seconds between looks at what another process may have put.
_POLL = 1.0
#: How many times the timeout of a channel, which is that of each step, all steps together may take.
_STEPS = 6

Deliver = Callable[[Channel, Mapping[str, Any]], None]


class _Notice(NamedTuple):
    id: str
    body: bytes
    tries: int


class Notifier:
    """The notices of ``channel``, the oldest first, until ``stop``. A crash between telling and marking tells twice.

    ``stop`` ends it after the one that is being told.
    """

    def __init__(self, channel: Channel, store: Store, clock: Clock, tell: Deliver = deliver) -> None:
        self.channel = channel
        self._store = store
        self._clock = clock
        self._tell = tell
        self._stopping = asyncio.Event()
        #: Notices that were told, and tries that failed.
        self.told = 0
        self.failed = 0
        #: What keeps notices from being told; empty if nothing does.
        self.trouble = ""

    def stop(self) -> None:
        """Tell no more than what is being told now."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing.

        Raises:
            StateError: the state cannot be used, and no repetition will mend that.
        """
        failures = 0
        while not self._stopping.is_set():
            try:
                busy = await self.step()
            except StateError as error:
                if not error.transient:
                    raise
                failures += 1
                await self._wait(_BACKOFF.delay(failures))
                continue
            failures = 0
            if not busy:
                await self._wait(_POLL)

    async def step(self) -> bool:
        """Tell the next one that is due. False if none is."""
        now = self._clock.now()
        found = await self._store.run(partial(self._next, now=now))
        if found is None:
            return False
        try:
            told = orjson.loads(found.body)
            async with asyncio.timeout(self.channel.timeout * _STEPS):
                await in_thread(lambda: self._tell(self.channel, told))
        except (DeliveryError, TimeoutError) as error:
            reason = str(error) or f"{self.channel.shown} did not answer in time"
            self.failed += 1
            if self.trouble != reason:
                self.trouble = reason
                _log.error(
                    "an alert cannot be told, trying again until it can: %s",
                    reason,
                    extra={"event": "alert-failed", "channel": self.channel.id, "notice": found.id},
                )
            due = self._clock.now() + _BACKOFF.delay(found.tries + 1)
            await self._store.run(partial(_failed, id=found.id, due=due, error=reason))
        else:
            await self._store.run(partial(_told, id=found.id, now=self._clock.now()))
            self.told += 1
            if self.trouble:
                self.trouble = ""
                _log.info("alerts are told again", extra={"event": "alert-recovered", "channel": self.channel.id})
        return True

    def _next(self, tx: Connection, now: float) -> _Notice | None:
        row = tx.execute(
            select(notices.c.id, notices.c.body, notices.c.tries)
            .where(notices.c.due <= now, notices.c.channel == self.channel.id)
            .order_by(notices.c.due, notices.c.made, notices.c.id)
            .limit(1)
        ).one_or_none()
        return None if row is None else _Notice(row.id, row.body, row.tries)

    async def _wait(self, seconds: float) -> None:
        stopped = asyncio.ensure_future(self._stopping.wait())
        waited = asyncio.ensure_future(self._clock.wait_until(self._clock.now() + seconds))
        try:
            await asyncio.wait([stopped, waited], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            waited.cancel()


def pending(tx: Connection) -> int:
    """How many notices were not told yet."""
    return tx.execute(select(func.count()).select_from(notices).where(notices.c.due.is_not(None))).scalar_one()


def waiting(tx: Connection) -> list[tuple[str, Any]]:
    """The notices that were not told yet, each with its channel."""
    rows = tx.execute(
        select(notices.c.channel, notices.c.body).where(notices.c.due.is_not(None)).order_by(notices.c.made)
    )
    return [(row.channel, orjson.loads(row.body)) for row in rows]


def orphans(tx: Connection, channels: Sequence[str]) -> int:
    """How many notices wait for channels that are no more."""
    lost = notices.c.due.is_not(None) & notices.c.channel.not_in(channels)
    return tx.execute(select(func.count()).select_from(notices).where(lost)).scalar_one()


def _told(tx: Connection, id: str, now: float) -> None:
    tx.execute(update(notices).where(notices.c.id == id).values(due=None, made=now, error=""))


def _failed(tx: Connection, id: str, due: float, error: str) -> None:
    values = {"due": due, "tries": notices.c.tries + 1, "error": error}
    tx.execute(update(notices).where(notices.c.id == id).values(**values))
