"""The running files taskmaster: looks at files, one transaction for what they mean, tasks out of the outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import Connection

from bus import Producer
from task.errors import StateError
from task.retry import Backoff
from task.task import new_id
from taskmasters.clock import Clock
from taskmasters.files import tables
from taskmasters.files.engine import FileEngine, Plan
from taskmasters.files.rules import FileRule
from taskmasters.files.scanner import Scanner
from taskmasters.files.source import Source
from taskmasters.standby import TakenOverError
from taskmasters.store import Relay, Store

__all__ = ["FilesTaskmaster", "Sources"]

_log = logging.getLogger("taskbus.files")
#: Seconds between the times of forgetting, and the longest wait for a moment to come.
_CLEANING, _LONGEST = 60.0, 60.0
_BACKOFF = Backoff("exponential", 0.1, 10.0)

#: Gives the source of a rule. Raises MissingExtraError.
Sources = Callable[[FileRule], Source]


class FilesTaskmaster:
    """Works until ``stop``. ``keep``: seconds for which a file that is gone is remembered."""

    def __init__(
        self,
        rules: Sequence[FileRule],
        store: Store,
        producer: Producer,
        clock: Clock,
        sources: Sources,
        *,
        keep: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sources = sources
        self._keep = keep
        self._cleaned = clock.now()
        self._new: Sequence[FileRule] | None = None
        self._stopping = False
        self._nudged = asyncio.Event()
        self._trouble = ""
        self._token = new_id()
        self.relay = Relay(store, producer, clock)
        self.engine = FileEngine(rules)
        self.scanners: list[Scanner] = []
        #: Files that were sent in tasks, and tasks that were made of them.
        self.files = 0
        self.made = 0

    @property
    def trouble(self) -> str:
        """What keeps tasks from being made or sent; empty if nothing does."""
        troubles = [self._trouble, self.relay.trouble, *(scanner.trouble for scanner in self.scanners)]
        if self.relay.refused:
            troubles.append(f"the bus refused {self.relay.refused} tasks for good; the log names them")
        return "; ".join(dict.fromkeys(trouble for trouble in troubles if trouble))

    def use(self, rules: Sequence[FileRule]) -> None:
        """Go on with these rules. What was sent for a rule that stays stays sent. Raises MissingExtraError."""
        for rule in rules:
            if rule.enabled:
                self._sources(rule)
        self._new = rules
        self._nudged.set()

    def stop(self) -> None:
        """Look no more; what was decided is sent."""
        self._stopping = True
        self._nudged.set()

    async def run(self) -> None:
        """Work until ``stop``. Cancelling it loses nothing.

        Raises:
            StateError: the state cannot be used, and no repetition will mend that.
            OutputClosedError, ClosedError: nothing can be published any more.
        """
        relay = asyncio.create_task(self.relay.run())
        try:
            while not self._stopping:
                if self._new is not None:
                    self.engine, self._new = FileEngine(self._new), None
                await self._persist(lambda: self._store.run(self._open))
                await self._with_these_rules(relay)
            self.relay.stop()
            await relay
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)

    async def _with_these_rules(self, relay: asyncio.Task[None]) -> None:
        rules = self.engine.rules.values()
        self.scanners = [
            Scanner(rule, self._sources(rule), self.engine, self._clock, self._nudged.set) for rule in rules
        ]
        parts = [asyncio.create_task(self._plan()), *(asyncio.create_task(one.run()) for one in self.scanners)]
        planning = parts[0]
        try:
            while not planning.done():
                await asyncio.wait([relay, *parts], return_when=asyncio.FIRST_COMPLETED)
                for part in (relay, *parts):
                    if part.done():
                        part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    def _open(self, tx: Connection) -> None:
        tables.claim(tx, self._token)
        self.engine.open(tx, self._clock.now())

    def _write(self, tx: Connection, plan: Plan, now: float) -> None:
        # What this one knows in memory is true only as long as nobody else writes.
        if not tables.claimed(tx, self._token):
            raise TakenOverError(f"another files taskmaster has begun to work on the state {self._store.shown}")
        plan.write(tx, now)

    async def _plan(self) -> None:
        """Until there are new rules or it is to stop."""
        while not self._stopping and self._new is None:
            self._nudged.clear()
            now = self._clock.now()
            plan = self.engine.plan(now)
            if plan:
                await self._persist(lambda p=plan, at=now: self._store.run(lambda tx: self._write(tx, p, at)))  # type: ignore[misc]
                self.engine.commit(plan)
                self.made += len(plan.messages)
                self.files += sum(bool(row.task) for row in plan.rows)
                for rule, _, _, why in plan.problems:
                    _log.error("no task can be made: %s", why, extra={"event": "no-task", "rule": rule})
                self.relay.nudge()
                continue
            await self._forget(now)
            wake = self.engine.wake(now)
            await self._wait(now + _LONGEST if wake is None else min(wake, now + _LONGEST))

    async def _forget(self, now: float) -> None:
        if now - self._cleaned < _CLEANING:
            return
        found = await self._store.run(lambda tx: tables.forget(tx, now - self._keep))
        self.engine.forgotten(found)
        if not found:
            self._cleaned = now

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                await attempt()
            except StateError as error:
                if not error.transient:
                    raise
                failures += 1
                if self._trouble != str(error):
                    self._trouble = str(error)
                    _log.error("%s; trying again until it works", error, extra={"event": "state-failed"})
                await asyncio.sleep(_BACKOFF.delay(failures))
            else:
                self._trouble = ""
                return

    async def _wait(self, moment: float) -> None:
        waits = [asyncio.ensure_future(self._nudged.wait()), asyncio.ensure_future(self._clock.wait_until(moment))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
