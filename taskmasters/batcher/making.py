"""Carries the requests that were taken to their ends, a portion of each in turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from task.errors import StateError, TaskError
from task.retry import Backoff
from taskmasters.batcher import tables
from taskmasters.batcher.engine import Batch, BatcherEngine
from taskmasters.batcher.tables import Row
from taskmasters.clock import Clock
from taskmasters.store import Store, outbox
from taskmasters.threads import in_thread

__all__ = ["Making"]

_log = logging.getLogger("taskbus.batcher")
#: Requests that are under way at a time, and tasks that may wait in the outbox before more are made.
_BATCHES, _WAITING = 20, 5000
#: Seconds between looks at what another instance may have taken, when nothing is to be made.
_LOOK = 1.0
#: Seconds between the times of forgetting.
_CLEANING = 60.0
_BACKOFF = Backoff("exponential", 0.1, 10.0)


class Making:
    """Works until ``stop``. ``keep``: seconds for which a request that has ended is known."""

    def __init__(self, engine: BatcherEngine, store: Store, clock: Clock, keep: float) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._keep = keep
        self._batches: dict[str, Batch] = {}
        self._stopping = asyncio.Event()
        self._cleaned = clock.now()
        self._nudged = asyncio.Event()
        #: Called when there may be something to send.
        self.stored: Callable[[], None] = _nobody
        #: What keeps tasks from being made; empty if nothing does.
        self.trouble = ""
        #: Tasks made, and requests that are under way; None before the first look.
        self.made = 0
        self.under_way: int | None = None

    def stop(self) -> None:
        """Make no more than what is being made now."""
        self._stopping.set()
        self._nudged.set()

    def nudge(self) -> None:
        """A request may have been taken: look now."""
        self._nudged.set()

    def statistics(self) -> dict[str, object]:
        """For the status page."""
        return {"tasks_made": self.made, "under_way": self.under_way}

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing.

        Raises:
            StateError: the state cannot be used, and no repetition will mend that.
        """
        failures = 0
        while not self._stopping.is_set():
            self._nudged.clear()
            try:
                busy = await self._turn()
            except StateError as error:
                if not error.transient:
                    raise
                failures += 1
                if self.trouble != str(error):
                    self.trouble = str(error)
                    _log.error("%s; trying again until it works", error, extra={"event": "state-failed"})
                await self._wait(_BACKOFF.delay(failures))
                continue
            failures, self.trouble = 0, ""
            if not busy:
                await self._wait(_LOOK)

    async def _turn(self) -> bool:
        """A portion of each. False if nothing was to be made."""
        now = self._clock.now()
        rows, waiting, self.under_way = await self._store.run(
            lambda tx: (tables.open_rows(tx, _BATCHES), outbox.count(tx), tables.open_count(tx))
        )
        self._batches = {row.key: self._batches[row.key] for row in rows if row.key in self._batches}
        if now - self._cleaned >= _CLEANING and not await self._store.run(
            lambda tx: tables.forget(tx, now - self._keep)
        ):
            self._cleaned = now
        if waiting >= _WAITING:
            return False
        busy = False
        for row in rows:
            if not self._stopping.is_set():
                busy = await self._carry_on(row, now) or busy
        return busy

    async def _carry_on(self, row: Row, now: float) -> bool:
        try:
            batch = await self._opened(row)
            if row.total is None:
                await self._begin(batch, now)
                return True
            tasks = await in_thread(lambda: batch.next(now))
        except StateError:
            raise
        except (TaskError, ValueError) as error:
            reason = str(error)
            _log.error("the batch %s is given up: %s", row.id, reason, extra={"event": "batch-failed", "batch": row.id})
            await self._store.run(lambda tx: self._engine.give_up(tx, row, reason, now))
            return True
        if not tasks and row.made < row.total:
            return False
        if await self._store.run(lambda tx: self._engine.store(tx, batch, tasks, now)):
            self.made += len(tasks)
            batch.advanced()
            self.stored()
        else:
            self._batches.pop(row.key, None)
        return True

    async def _begin(self, batch: Batch, now: float) -> None:
        total, signature = await in_thread(batch.count)
        if await self._store.run(lambda tx: self._engine.begin(tx, batch, total, signature, now)):
            batch.row = batch.row._replace(total=total, signature=signature, began=now)
            _log.info("a batch begins", extra={"event": "batch-began", "batch": batch.row.id, "tasks": total})
        else:
            self._batches.pop(batch.row.key, None)

    async def _opened(self, row: Row) -> Batch:
        """The batch as it stands in the state: anew, if another instance has carried it on."""
        batch = self._batches.get(row.key)
        if batch is None or batch.row != row:
            batch = self._batches[row.key] = await in_thread(lambda: self._engine.open(row))
            if row.total is not None:
                total, signature = await in_thread(batch.count)
                if (total, signature) != (row.total, row.signature):
                    raise TaskError("the file of its rows, or the rule or workflow it names, was changed meanwhile")
        return batch

    async def _wait(self, seconds: float) -> None:
        waits = [
            asyncio.ensure_future(self._nudged.wait()),
            asyncio.ensure_future(self._clock.wait_until(self._clock.now() + seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _nobody() -> None:
    """Nobody wants to know."""
