"""A launcher that begins a task only when no other instance is doing, or has just done, the same.

It stands between the receiver and the slots: claims are made and kept on the bus's event loop, where user code cannot
hold them up, whatever way of isolation the slots have. Only what is under a claim reaches a slot, and what has ended
reaches the receiver only when its claim was given back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from bus import BusError, Capabilities
from bus.kv import open_kv
from task.assignment import Assignment
from task.context import CancelReason
from task.errors import SettingsError
from task.guard import Claim, Done, Guard, Running
from task.launcher import Launcher
from task.options import WorkerOptions
from task.recorder import Recorder
from task.retry import Backoff
from task.stats import Stats
from task.verdict import Judge, Verdict
from task.worker import Launch

__all__ = ["GuardedLauncher"]

_log = logging.getLogger("taskbus.worker")
#: Seconds between looks at whether what is waited for has ended: the first, and the longest.
_LOOK = Backoff("exponential", 0.05, 1.0)
#: Seconds before trying again when the store does not answer.
_AGAIN = Backoff("exponential", 0.05, 5.0)
#: Seconds before a task that is handed back may come again, unless the lease is shorter.
_LATER = 1.0
#: Seconds that claims get to be given back when the application ends.
_ENDING = 5.0
#: Claims are renewed five times in a lease; when less than one fifth of it is left, the task is told to stop.
_PARTS = 5
Returned = TypeVar("Returned")


class GuardedLauncher(Launcher):
    """A :class:`Launcher` with a guard: ``open``, ``attach`` and ``start`` it in this order, and ``close`` it."""

    def __init__(self, launch: Launch, options: WorkerOptions, group: str, stats: Stats) -> None:
        """Raises WorkerError, SettingsError, BusURLError."""
        self._store = open_kv(options.guard or "")
        self._guard = Guard(self._store, group, options)
        super().__init__(launch, options)
        self._part = self._guard.lease / _PARTS
        self._policy = options.guard_running
        self._stats = stats
        self._judge: Judge | None = None
        self._refuse: Callable[[Verdict], None] = lambda verdict: None
        #: What waits to be begun or answered, each with what tries to claim it.
        self._coming: dict[Assignment, asyncio.Task[None]] = {}
        #: What may be begun, is being done or has ended, each with its claim.
        self._claims: dict[Assignment, Claim] = {}
        #: Claims that are being given back.
        self._ending: dict[Assignment, asyncio.Task[None]] = {}
        self._over: list[Assignment] = []
        self._keeping: asyncio.Task[None] | None = None

    async def open(self, capabilities: Capabilities) -> None:
        """Connect to the store. Raises BusError, and SettingsError if this bus cannot do what the guard needs."""
        if self._policy == "requeue" and not capabilities.nack_delay:
            raise SettingsError(
                "--guard-running requeue: this bus cannot show a task later that it has delivered, so it would come "
                "again without end; use wait"
            )
        try:
            await self._store.open()
            await self._guard.check()
        except BaseException:
            await self._store.close()
            raise

    def attach(self, judge: Judge, refuse: Callable[[Verdict], None]) -> None:
        """Say who judges, and who settles what is not to be begun."""
        self._judge, self._refuse = judge, refuse

    def start(self, recorder: Recorder | None = None) -> None:
        super().start(recorder)
        self._keeping = asyncio.create_task(self._keep())

    def submit(self, assignments: Sequence[Assignment], *, brief: bool = False) -> None:
        for assignment in assignments:
            self._coming[assignment] = asyncio.create_task(self._come(assignment))

    def take_back(self) -> list[Assignment]:
        taken = super().take_back()
        for assignment in taken:
            self._give_back(assignment)
        for assignment, coming in self._coming.items():
            coming.cancel()
            taken.append(assignment)
        self._coming.clear()
        return taken

    def collect(self) -> list[Assignment]:
        for assignment in super().collect():
            self._give_back(assignment)
        over, self._over = self._over, []
        return [assignment for assignment in over if not assignment.dropped]

    async def close(self) -> None:
        """Give back what can be, and let go of the store."""
        tasks = [*self._coming.values(), *([self._keeping] if self._keeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._ending:
            _, late = await asyncio.wait(self._ending.values(), timeout=_ENDING)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDING):
                await self._guard.close()

    async def _come(self, assignment: Assignment) -> None:
        """Begin this task once nothing stands in its way, or have it settled."""
        claim = self._guard.claim(assignment.task)
        try:
            found = await self._claimed(claim, assignment)
        except asyncio.CancelledError:
            # Whether it was claimed at the last moment is not known.
            self._ending[assignment] = asyncio.create_task(self._withdraw(assignment, claim))
            raise
        del self._coming[assignment]
        if assignment.dropped:
            if found is None:
                self._claims[assignment] = claim
                self._give_back(assignment)
        elif found is None:
            self._claims[assignment] = claim
            super().submit([assignment])
        else:
            self._answer(assignment, found)

    async def _claimed(self, claim: Claim, assignment: Assignment) -> Done | Running | None:
        """Acquire ``claim``; else what stands in its way, if that is not to be waited for."""
        looks = 0
        while not assignment.dropped:
            entry = await self._surely(claim.acquire)
            if entry is None:
                # This process may have stood still since it asked.
                if claim.left > self._part or await self._surely(claim.renew):
                    return None
                continue
            found: Done | Running | None = self._guard.read(entry)
            while isinstance(found, Running) and self._policy == "wait" and not assignment.dropped:
                if not looks:
                    self._stats.guard_waits += 1
                looks += 1
                await asyncio.sleep(_LOOK.delay(looks))
                found = await self._surely(lambda: self._guard.look(claim))
            if found is not None:
                return found
        return Running("")

    def _answer(self, assignment: Assignment, found: Done | Running) -> None:
        judge = self._judge
        if judge is None:
            return
        if isinstance(found, Running) and self._policy == "requeue":
            self._stats.guard_requeues += 1
            attempt = assignment.context.attempt
            delay = Backoff("exponential", _LATER, max(_LATER, self._guard.lease)).delay(attempt)
            self._refuse(judge.later(assignment.delivery, assignment.task, delay))
            return
        self._stats.guard_repeats += 1
        done = self._guard.answer(assignment.task, found)
        assignment.outcome, assignment.started, assignment.completed = done.outcome, done.started, done.completed
        self._refuse(judge.ended(assignment))

    def _give_back(self, assignment: Assignment) -> None:
        claim = self._claims.pop(assignment, None)
        if claim is None:
            if not assignment.dropped:
                self._lost(assignment)
        elif assignment not in self._ending:
            self._ending[assignment] = asyncio.create_task(self._end(assignment, claim))

    async def _withdraw(self, assignment: Assignment, claim: Claim) -> None:
        try:
            if await self._surely(claim.acquire) is None:
                await self._surely(claim.end)
        finally:
            del self._ending[assignment]

    async def _end(self, assignment: Assignment, claim: Claim) -> None:
        """Give ``claim`` back with what came of the task. Only then that counts."""
        began = bool(assignment.ended)
        outcome = assignment.outcome if began and not assignment.dropped else None
        try:
            held = await self._surely(
                lambda: self._guard.finish(claim, outcome, assignment.started, assignment.completed)
            )
        finally:
            del self._ending[assignment]
        if not began or assignment.dropped:
            return
        if held:
            self._over.append(assignment)
            self.wake()
        else:
            self._lost(assignment)

    def _lost(self, assignment: Assignment) -> None:
        """Another instance may have done the same meanwhile: what came of it here does not count."""
        self._stats.guard_lost += 1
        _log.warning(
            "lost the guard of a task; what came of it does not count, and it is handed back",
            extra={"event": "guard-lost", "task_type": assignment.task.type, "task_id": assignment.task.id},
        )
        if self._judge is not None:
            self._refuse(self._judge.later(assignment.delivery, assignment.task, _LATER))

    async def _keep(self) -> None:
        """Renew what is held; tell what is lost to stop, while it still may be held."""
        while True:
            await asyncio.sleep(self._part)
            await asyncio.gather(*(self._renew(assignment, claim) for assignment, claim in self._held()))

    def _held(self) -> list[tuple[Assignment, Claim]]:
        """Claims to renew. Those of tasks that will not be begun lapse, those of tasks that ended unseen are ended."""
        for assignment in [each for each in self._claims if each.dropped and each.ended]:
            self._give_back(assignment)
        return [(each, claim) for each, claim in self._claims.items() if each.began or not each.dropped]

    async def _renew(self, assignment: Assignment, claim: Claim) -> None:
        held = True
        try:
            async with asyncio.timeout(self._part):
                held = await claim.renew()
            self._back()
        except (BusError, TimeoutError) as error:
            self._away(error)
        if (held and claim.left > self._part) or self._claims.get(assignment) is not claim:
            return
        del self._claims[assignment]
        if assignment.dropped:
            return
        if assignment.began:
            # When it has ended it is handed back.
            self.cancel(assignment, CancelReason.LEASE_LOST)
        else:
            self._lost(assignment)
            assignment.dropped = True

    async def _surely(self, ask: Callable[[], Awaitable[Returned]]) -> Returned:
        """Ask the store until it answers."""
        tries = 0
        while True:
            try:
                async with asyncio.timeout(self._guard.lease):
                    answer = await ask()
            except (BusError, TimeoutError) as error:
                tries += 1
                self._away(error)
                await asyncio.sleep(_AGAIN.delay(tries))
            else:
                self._back()
                return answer

    def _away(self, error: BusError | TimeoutError) -> None:
        text = str(error) or "no answer in time"
        if not self.trouble:
            _log.error("cannot ask the store of the guard, trying again: %s", text, extra={"event": "guard-failed"})
        self.trouble = f"the guard: {text}"

    def _back(self) -> None:
        if self.trouble:
            _log.info("the store of the guard answers again", extra={"event": "guard-back"})
            self.trouble = ""
