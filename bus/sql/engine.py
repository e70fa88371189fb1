"""The one thread that talks to the database: it joins what callers ask for at the same time into one transaction.

A claim that finds nothing stays with the thread. It is tried again when this process has published to its topic, when
the database shows that another process has written, and when a delay or a lease ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from bus.errors import BusError, ClosedError, UnreachableError
from bus.registry import Clock
from bus.sql import statements as sql
from bus.sql.calls import Claim, Job, Look, Step, Work, settle, settle_all
from bus.sql.database import Database, Transaction
from bus.sql.membership import Listeners, Member
from bus.sql.queue import claim, next_due
from bus.sql.topic import publish
from bus.steady import SteadyClock, start_of_time

__all__ = ["Engine"]

_log = logging.getLogger("taskbus.bus")
#: The most calls joined into one transaction.
_MOST = 500
#: Seconds between looks for what other processes did, while something happens.
_QUICK = 0.01
#: Seconds without anything new after which looks become rarer, up to the ``poll`` of the options.
_LONG = 1.0
#: Seconds between renewals of broadcast consumers.
_CHORES = 20.0
#: Seconds between tries of a claim that met trouble.
_TRY_AGAIN = 0.5
#: Seconds for which trouble is told after it was last met.
_TROUBLED = 10.0
#: Microseconds: before and beyond any time.
_PAST, _NEVER = 1, 1 << 62
Result = TypeVar("Result")


class Engine:
    """Runs work on the database's thread. ``now`` is handed to it in microseconds of ``clock``."""

    def __init__(self, database: Database, clock: Clock, poll: float) -> None:
        self._database = database
        self._clock = clock
        self._poll = poll
        self._inbox: SimpleQueue[Job[Any] | Claim | Callable[[], object] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        # What follows belongs to the thread.
        self._jobs: list[Job[Any]] = []
        self._waiting: list[Claim] = []
        self._done: list[Job[Any] | Claim] = []
        self._ending = False
        self._look_at = 0.0
        self._pause = _QUICK
        self._busy_at = 0.0
        self._chores_at = 0.0
        self._members: dict[int, Member] = {}
        self._listeners = Listeners()
        self._trouble: tuple[float, BusError] | None = None

    async def open(self) -> str:
        """Start; returns the epoch of the store. Raises what opening the database raises."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[str] = self._loop.create_future()
        self._ended = self._loop.create_future()
        thread = threading.Thread(target=self._serve, args=(opened,), name="taskbus-sqlite", daemon=True)
        thread.start()
        epoch = await opened
        self._thread = thread
        return epoch

    async def write(self, work: Work[Result], *, durable: bool, topics: Collection[str] = ()) -> Result:
        """The result of ``work``, committed. Waiting consumers of ``topics`` look again.

        Cancelling does not undo it.
        """
        return await asyncio.shield(self.submit(work, durable=durable, topics=topics))

    def submit(self, work: Work[Result], *, durable: bool, topics: Collection[str] = ()) -> asyncio.Future[Result]:
        """As :meth:`write`, without waiting."""
        future: asyncio.Future[Result] = self._running().create_future()
        self._inbox.put(Job(work, future, topics, durable=durable))
        return future

    async def read(self, work: Work[Result]) -> Result:
        """The result of ``work``, which changes nothing."""
        future: asyncio.Future[Result] = self._running().create_future()
        self._inbox.put(Look(work, future, (), durable=False))
        return await future

    def claim(self, member: Member, limit: int) -> Claim:
        """Ask for up to ``limit`` messages."""
        wish = Claim(member, limit, self._running().create_future())
        self._inbox.put(wish)
        return wish

    def withdraw(self, wish: Claim, *, unwanted: bool) -> None:
        """Have the claim answered soon, with nothing if there is nothing. ``unwanted``: better with nothing at all."""
        wish.withdrawn = True
        wish.unwanted = unwanted
        self._inbox.put(_nothing)

    def renew(self, member: Member) -> None:
        """Keep the group of a broadcast consumer until :meth:`forget`."""
        self._inbox.put(lambda: self._members.__setitem__(member.owner, member))

    def forget(self, member: Member) -> None:
        """No longer :meth:`renew`."""
        self._inbox.put(lambda: self._members.pop(member.owner, None))

    @property
    def trouble(self) -> BusError | None:
        """What lately kept the database from being used."""
        trouble = self._trouble
        return trouble[1] if trouble and time.monotonic() - trouble[0] < _TROUBLED else None

    async def close(self) -> None:
        """Finish what was asked for and disconnect. Claims that still wait are answered with nothing. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None and self._ended is not None:
            self._inbox.put(None)
            await self._ended
            thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            raise ClosedError("the sqlite bus is closed, or was not opened: use `async with connect(url) as bus`")
        return self._loop

    def _serve(self, opened: asyncio.Future[str]) -> None:
        try:
            epoch = self._database.open()
            self._agree()
        except Exception as error:  # whatever it is belongs to the caller, not to this thread
            self._call(settle, opened, None, error)
            return
        self._call(settle, opened, epoch, None)
        try:
            while not self._ending:
                self._jobs = self._gather()
                claims = self._due(bool(self._jobs))
                self._look([job for job in self._jobs if isinstance(job, Look)])
                self._change([job for job in self._jobs if not isinstance(job, Look)], claims)
                self._jobs = []
                self._chores()
                self._report()
        finally:
            self._database.close()
            self._abandon()

    def _agree(self) -> None:
        """Take the time from whoever was first since the machine was started, or be the first."""
        clock, start = self._clock, start_of_time()
        if not isinstance(clock, SteadyClock) or start is None:
            return

        def agree(tx: Transaction) -> float:
            if not (found := tx.rows(sql.FIND_START, start=start)):
                tx.run(sql.MAKE_START, start=start, ahead=clock.present())
                found = tx.rows(sql.FIND_START, start=start)
            ahead: float = found[0][0]
            return ahead

        try:
            found = self._database.read(lambda tx: tx.rows(sql.FIND_START, start=start))
            clock.ahead = found[0][0] if found else self._database.write(agree, durable=False)
        except BusError as error:
            # As likely as not a full disk, on which what is there may yet be done.
            _log.warning("%s; until this ends leases go by the clock of the machine", error)

    def _abandon(self) -> None:
        """Leave nobody waiting for an answer, whatever ended the thread."""
        for job in self._jobs:
            job.error = ClosedError("the sqlite bus has stopped")
        self._done += [*self._jobs, *self._waiting]
        self._report()
        if self._ended is not None:
            self._call(settle, self._ended, None, None)

    def _gather(self) -> list[Job[Any]]:
        """Wait for something to do; the jobs among it."""
        jobs: list[Job[Any]] = []
        try:
            item = self._inbox.get(timeout=self._patience())
            while True:
                if item is None:
                    self._ending = True
                    break
                if isinstance(item, Job):
                    jobs.append(item)
                elif isinstance(item, Claim):
                    self._waiting.append(item)
                else:
                    item()
                if len(jobs) >= _MOST:
                    break
                item = self._inbox.get_nowait()
        except Empty:
            pass
        return jobs

    def _patience(self) -> float:
        now = time.monotonic()
        until = self._chores_at
        if self._waiting:
            due = min(max(wish.due - self._now(), 0) / 1e6 + now for wish in self._waiting)
            blocked = min(wish.not_before for wish in self._waiting)
            until = min(until, self._look_at, max(due, blocked))
        return max(0.0, until - now)

    def _due(self, busy: bool) -> list[Claim]:
        """The waiting claims that may find something now. Those withdrawn are answered."""
        for wish in [wish for wish in self._waiting if wish.withdrawn and (wish.due or wish.unwanted)]:
            self._answer(wish)
        if not self._waiting:
            return []
        elapsed, now = time.monotonic(), self._now()
        looking = elapsed >= self._look_at
        changed = looking and self._changed()
        if busy or changed:
            self._busy_at, self._pause = elapsed, min(_QUICK, self._poll)
        elif elapsed - self._busy_at > _LONG:
            self._pause = min(self._pause * 1.1, self._poll)
        next_look = elapsed + self._pause
        self._look_at = next_look if looking else min(self._look_at, next_look)
        return [wish for wish in self._waiting if (changed or wish.due <= now) and wish.not_before <= elapsed]

    def _changed(self) -> bool:
        try:
            return self._database.changed()
        except BusError as error:
            self._met(error, self._waiting)
            return False

    def _look(self, jobs: Iterable[Job[Any]]) -> None:
        for job in jobs:
            try:
                self._database.read(partial(self._run, [job]))
            except Exception as error:  # whatever it is belongs to the caller, not to this thread
                job.error = error
            self._done.append(job)

    def _change(self, jobs: list[Job[Any]], claims: list[Claim]) -> None:
        if not jobs and not any(wish.member.flowing for wish in claims):
            claims = self._promising(claims) if claims else []
        if jobs or claims:
            self._transact(jobs, claims)

    def _promising(self, claims: list[Claim]) -> list[Claim]:
        """Those for which there is something. Looking does not wait for other processes and costs no write."""

        def look(tx: Transaction) -> list[Claim]:
            now = self._now()
            for wish in claims:
                due = next_due(tx, wish.member, now)
                wish.due = _NEVER if due is None else due
            return [wish for wish in claims if wish.due <= now]

        try:
            return self._database.read(look)
        except BusError as error:
            self._met(error, claims)
            return []

    def _transact(self, jobs: list[Job[Any]], claims: list[Claim]) -> None:
        """Do all of it in one transaction, and with it the claims that wait for what the jobs publish."""
        tried = list(claims)

        def work(tx: Transaction) -> None:
            now = self._run(jobs, tx)
            topics = set(chain.from_iterable(job.topics for job in jobs))
            tried.extend(wish for wish in self._waiting if wish.member.topic in topics and wish not in claims)
            for wish in tried:
                wish.found = claim(tx, wish.member, wish.limit, now)
                wish.member.flowing = bool(wish.found)
                if not wish.found:
                    due = next_due(tx, wish.member, now)
                    wish.due = _NEVER if due is None else due

        try:
            self._database.write(work, durable=any(job.durable for job in jobs))
        except Exception as error:  # whatever it is belongs to the callers, not to this thread
            for wish in tried:
                wish.found = []
            self._failed(error, jobs, tried)
            return
        self._trouble = None
        self._done += jobs
        for wish in tried:
            if wish.found:
                self._answer(wish)

    def _run(self, jobs: Iterable[Job[Any]], tx: Transaction) -> int:
        """Do what the jobs ask for, and then publish what all of them publish; returns the time."""
        step = Step(tx, self._now())
        for job in jobs:
            job.run(step)
        publish(tx, step.outgoing, step.now)
        return step.now

    def _failed(self, error: Exception, jobs: list[Job[Any]], claims: list[Claim]) -> None:
        """Find out whose fault it was by doing each alone, unless the database could not be reached at all."""
        if len(jobs) + len(claims) > 1 and not isinstance(error, UnreachableError):
            for job in jobs:
                self._alone(job)
            for wish in claims:
                self._transact([], [wish])
            return
        if isinstance(error, BusError):
            self._met(error, claims)
        else:
            for wish in claims:
                wish.error = error
                self._answer(wish)
        for job in jobs:
            job.error = error
        self._done += jobs

    def _alone(self, job: Job[Any]) -> None:
        try:
            self._database.write(partial(self._run, [job]), durable=job.durable)
        except Exception as error:  # whatever it is belongs to the caller, not to this thread
            job.error = error
            if isinstance(error, BusError):
                self._met(error, [])
        self._done.append(job)

    def _met(self, error: BusError, claims: list[Claim]) -> None:
        """Trouble: who waits for messages waits on while it may pass, and is told otherwise."""
        if self._trouble is None:
            _log.warning("%s", error, extra={"event": "bus-trouble"})
        self._trouble = (time.monotonic(), error)
        for wish in list(claims):
            wish.due, wish.not_before = _PAST, time.monotonic() + _TRY_AGAIN
            if wish.withdrawn or not error.transient:
                wish.error = None if error.transient else error
                self._answer(wish)

    def _answer(self, wish: Claim) -> None:
        self._waiting.remove(wish)
        self._done.append(wish)

    def _chores(self) -> None:
        if time.monotonic() < self._chores_at:
            return
        self._chores_at = time.monotonic() + _CHORES
        members = list(self._members.values())
        self._ending = self._ending or (self._loop is not None and self._loop.is_closed())
        try:
            if self._database.read(self._listeners.any):
                self._database.write(lambda tx: self._listeners.tend(tx, members), durable=False)
        except BusError as error:
            self._met(error, [])

    def _report(self) -> None:
        if self._done:
            done, self._done = self._done, []
            self._call(settle_all, done)

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop has ended with its application, and with it whoever waited for the answer.
            self._ending = True

    def _now(self) -> int:
        return int(self._clock() * 1e6)


def _nothing() -> None:
    """Wakes the thread."""
