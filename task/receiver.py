"""The receiver takes tasks from the bus, hands them to the launcher and posts what came of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from bus import BusError, Capabilities, Consumer, Delivery, Producer
from bus.units import format_duration
from task.admission import Admission
from task.assignment import Assignment
from task.context import CancelReason
from task.drain import Drain
from task.errors import WorkerError
from task.launcher import Launcher
from task.options import WorkerOptions
from task.recorder import Recorder
from task.settler import Settler
from task.stats import Stats
from task.verdict import Action, Judge, Verdict
from task.watchdog import Watchdog
from task.window import Window

__all__ = ["Receiver"]

_log = logging.getLogger("taskbus.worker")
#: Seconds between looks at leases, time limits and stalls while anything is held.
_TICK = 0.1
#: Seconds between looks at whether what is held is still ours, on a bus whose leases have no length.
_LOOK = 1.0
#: Seconds results of tiny tasks may wait for more, to be settled in one batch.
_LINGER = 0.002
#: Batches of results that may be on their way to the bus at once.
_PIPELINED = 4
#: Portions in which a wide window is filled.
_PORTIONS = 4
#: Seconds after which a running task counts as long, and what waits behind it is handed back.
_PATIENCE = 0.1
#: Seconds between looks at whether the topic is empty, with ``--drain``.
_DRAIN_TICK = 0.1
#: Seconds cancelled tasks get to come to an end before they are given up.
_GRACE = 2.0
#: Threads left behind by tasks that would not end, after which the application stops rather than pile up more.
_MOST_ABANDONED = 8


class Receiver:
    """One consumer, one producer, one launcher. ``run`` returns when the input has ended or ``stop`` was called."""

    def __init__(
        self,
        kind: str,
        options: WorkerOptions,
        judge: Judge,
        launcher: Launcher,
        stats: Stats,
        consumer: Consumer,
        producer: Producer,
        capabilities: Capabilities,
        *,
        atomic: bool = False,
        recorder: Recorder | None = None,
        drain: Drain | None = None,
        watchdog: Watchdog | None = None,
        reopen: Callable[[], Awaitable[tuple[Consumer, Producer]]] | None = None,
    ) -> None:
        self._options = options
        self._judge = judge
        self._launcher = launcher
        self._stats = stats
        self._consumer = consumer
        self._drain = drain
        self._watchdog = watchdog
        self._reopen = reopen
        self._recorder = recorder
        self._atomic = atomic
        self._admission = Admission(kind, options, judge)
        self._settler = Settler(consumer, producer, stats, atomic=atomic, lost=self._lost)
        self._at_most_once = judge.at_most_once
        # What was acknowledged cannot be handed back, so no more of it is taken than can be begun at once.
        prefetch = 0 if self._at_most_once else options.prefetch
        self._window = Window(options.max_in_progress, fixed=prefetch, shared=capabilities.shared)
        #: Everything received and not yet settled, with its assignment if it became one.
        self._held: dict[Delivery, Assignment | None] = {}
        self._refused: list[Verdict] = []
        #: Batches of results that may be on their way to the bus at once. Where settling is one transaction, or the
        #: order of a plain file counts, one batch follows the other.
        self._pipelined = _PIPELINED if capabilities.shared and not atomic else 1
        self._settling = 0
        #: Held by who waits for the next batch.
        self._turn = asyncio.Lock()
        self._begun = 0
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy = asyncio.Event()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self.receiving = False

    @property
    def trouble(self) -> str:
        """What keeps results from being delivered or tasks from coming; empty if nothing does."""
        return self._settler.trouble or (self._watchdog.trouble if self._watchdog is not None else "")

    @property
    def held(self) -> int:
        """Deliveries received and not yet settled."""
        return len(self._held)

    @property
    def spent(self) -> bool:
        """Whether it has done as many tasks as its lifetime is long."""
        lifetime = self._options.lifetime
        return lifetime is not None and self._begun >= lifetime

    def refuse(self, verdict: Verdict) -> None:
        """Settle a delivery that was given to the launcher and is not begun, or whose end does not count."""
        if verdict.action is Action.RELEASE:
            self._begun -= 1
        self._refused.append(verdict)
        self._launcher.wake()

    def stop(self) -> None:
        """Receive no more, let running tasks end within the kill time, hand back the rest. A second call hastens."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self) -> None:
        """Do the work.

        Raises:
            BusError: if results can no longer be delivered anywhere (a closed pipe).
            WorkerError: if too many tasks would not end and the process should be replaced.
        """
        self._launcher.start(self._recorder)
        settlers = [self._settle_loop] * self._pipelined
        loops = [asyncio.create_task(loop()) for loop in (*settlers, self._keep_loop)]
        receive = asyncio.create_task(self._receive_watched())
        stop = asyncio.create_task(self._stop.wait())
        self.receiving = True
        try:
            await asyncio.wait([receive, stop, *loops], return_when=asyncio.FIRST_COMPLETED)
            if receive.done():
                # At the end of the input, or because it cannot be read on: what was received is done all the same.
                self.receiving = False
                await self._first(self._idle.wait(), stop, *loops)
            if stop.done():
                self.receiving = False
                await self._shut_down(receive, loops)
            for task in (receive, *loops):
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            self.receiving = False
            await _end(receive, stop, *loops)
            self._launcher.stop()

    async def _first(self, waiting: Awaitable[object], *tasks: asyncio.Task[object] | asyncio.Task[None]) -> None:
        """Wait for ``waiting`` or any of ``tasks``."""
        mine = asyncio.ensure_future(waiting)
        await asyncio.wait([mine, *tasks], return_when=asyncio.FIRST_COMPLETED)
        await _end(mine)

    async def _receive_watched(self) -> None:
        """Receive until the input ends, from a new connection whenever the watchdog finds this one deaf."""
        watchdog, reopen = self._watchdog, self._reopen
        if watchdog is None or reopen is None:
            await self._receive_loop()
            return
        while True:
            receive = asyncio.create_task(self._receive_loop())
            stalled = asyncio.create_task(watchdog.stalled(self._asking))
            try:
                await asyncio.wait([receive, stalled], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(receive, stalled)
            if not receive.cancelled():
                receive.result()
                return
            stalled.result()
            if self._asking():  # what came at the last moment is done first
                self._consumer, producer = await reopen()
                self._settler = Settler(self._consumer, producer, self._stats, atomic=self._atomic, lost=self._lost)

    def _asking(self) -> bool:
        """Whether nothing is held or being settled, so that all there is to do is to receive."""
        return not self._held and not self._settling

    async def _receive_loop(self) -> None:
        consumer, drain = self._consumer, self._drain
        while True:
            limit = self._free()
            if limit == 0:
                return
            if limit < 0:
                self._room.clear()
                await self._room.wait()
                continue
            deliveries = await consumer.receive(limit, _DRAIN_TICK if drain else None)
            if deliveries:
                await self._admit(deliveries)
            elif consumer.ended or (drain and not self._held and await drain.empty()):
                return

    def _free(self) -> int:
        """How many to ask for; -1 to wait for room, 0 to ask never again."""
        window, held = self._window, len(self._held)
        free = window.size - held
        lifetime = self._options.lifetime
        if lifetime is not None:
            if self._begun >= lifetime:
                # What was begun may yet be handed back unbegun, and then others are begun in its place.
                return -1 if held else 0
            free = min(free, lifetime - self._begun)
        elif window.wide and held and free * 2 < window.size:
            # Refilled by halves: asking again for every single task would cost more than doing it.
            return -1
        elif window.wide:
            # And in portions, so that some are done while others are received and others settled.
            free = min(free, max(1, window.size // _PORTIONS))
        return free if free > 0 else -1

    async def _admit(self, deliveries: Sequence[Delivery]) -> None:
        self._stats.received += len(deliveries)
        self._stats.last_received = now = monotonic()
        if self._stats.first_received is None:
            self._stats.first_received = now
        held, admit = self._held, self._admission.admit
        assignments: list[Assignment] = []
        recalled: list[Assignment] = []
        for delivery in deliveries:
            admitted = admit(delivery)
            if isinstance(admitted, Assignment):
                held[delivery] = admitted
                if delivery.attempt > 1 and self._recorder is not None and self._recorder.recall(delivery, admitted):
                    recalled.append(admitted)
                else:
                    assignments.append(admitted)
            else:
                held[delivery] = None
                self._refused.append(admitted)
        self._idle.clear()
        self._busy.set()
        self._begun += len(assignments)
        if self._at_most_once:
            try:
                await self._settler.acknowledge([assignment.delivery for assignment in assignments])
            except asyncio.CancelledError:
                self._hand_back(assignments)
                raise
        brief = len(assignments) == len(held) == 1 and self._window.tiny
        self._launcher.submit(assignments, brief=brief)
        if recalled:
            _log.info("answering with outcomes recorded before a crash: %d", len(recalled), extra={"event": "recalled"})
            self._refused += map(self._judge.ended, recalled)
        if self._refused:
            self._launcher.wake()
        if brief:
            await asyncio.sleep(0)  # its result goes out before more is asked for

    async def _settle_loop(self) -> None:
        """One of those that settle in turns: while it waits for confirmations, another waits for what ends."""
        launcher = self._launcher
        while True:
            async with self._turn:
                await launcher.wait()
                if self._window.wide and launcher.waiting():
                    await asyncio.sleep(_LINGER)
                verdicts = self._judge_ended()
                self._settling += 1
            try:
                if verdicts:
                    await self._settler.settle(verdicts)
                    self._settled(verdicts)
            finally:
                self._settling -= 1

    def _judge_ended(self) -> list[Verdict]:
        """What is to be settled of all that has ended, or was refused, since the last look."""
        launcher = self._launcher
        ended = launcher.collect()
        verdicts, self._refused = self._refused, []
        if ended:
            seconds = sum([assignment.ended - assignment.began for assignment in ended])
            self._stats.seconds += seconds
            self._stats.runs += len(ended)
            self._window.observe(seconds, len(ended))
            launcher.recording = self._window.wide
            verdicts += map(self._judge.ended, ended)
        return verdicts

    def _settled(self, verdicts: Sequence[Verdict]) -> None:
        held, results = self._held, self._stats.results
        for verdict in verdicts:
            if verdict.delivery not in held:
                continue  # its lease was lost while it was being settled
            del held[verdict.delivery]
            results[verdict.result] += 1
            assignment = verdict.assignment
            if assignment is not None and assignment.outcome is None and not assignment.crashed:
                self._stats.interrupted += 1
            if verdict.result in _NOTABLE:
                _report(verdict)
        self._stats.last_settled = monotonic()
        if self._drain is not None:
            self._drain.happened(max([verdict.delay for verdict in verdicts]))
        self._room.set()
        if not held:
            self._busy.clear()
            self._idle.set()

    async def _keep_loop(self) -> None:
        lease = self._consumer.lease
        # Where a lease has no length it may yet be lost, as when a partition moves to another consumer.
        period = lease / 3 if lease else _LOOK
        due = monotonic() + period
        while True:
            if not self._held:
                await self._busy.wait()
                due = monotonic() + period
                # User code may have begun, and kept the interpreter, before this loop was told that anything came.
                before = self._stats.last_received or monotonic()
            else:
                before = monotonic()
            await asyncio.sleep(_TICK if lease is None else min(_TICK, lease / 6))
            if lease is not None and monotonic() - before > lease:
                _stood_still(monotonic() - before, lease)
            if monotonic() >= due:
                due = monotonic() + period
                await self._extend()
            self._launcher.enforce_limits()
            self._hand_back_behind_long_ones()
            if self._launcher.abandoned() >= _MOST_ABANDONED:
                raise WorkerError(
                    f"{_MOST_ABANDONED} tasks ran past their hard time limit and their threads cannot be ended; "
                    "stopping so that a fresh process takes over (use --isolation process for such workers)",
                    stuck=True,
                )

    async def _extend(self) -> None:
        if self._at_most_once:
            return
        try:
            lost = await self._consumer.extend(list(self._held))
        except BusError as error:
            _log.warning("cannot extend leases: %s", error, extra={"event": "extend-failed"})
            return
        if lost:
            self._lost(lost)

    def _lost(self, deliveries: Sequence[Delivery]) -> None:
        """Somebody else has these now: whatever comes of them here must not count."""
        for delivery in deliveries:
            if delivery not in self._held:
                continue  # extending and settling may both have found out
            assignment = self._held.pop(delivery)
            self._stats.lease_lost += 1
            if assignment is not None:
                assignment.dropped = True
                self._launcher.cancel(assignment, CancelReason.LEASE_LOST)
                _log.warning(
                    "lost the lease of a task; another instance does it",
                    extra={"event": "lease-lost", "task_type": assignment.task.type, "task_id": assignment.task.id},
                )
        self._room.set()
        if not self._held:
            self._busy.clear()
            self._idle.set()

    def _hand_back_behind_long_ones(self) -> None:
        """What waits behind a task that turned out long belongs to whoever is idle."""
        if not self._window.adaptive or not self._launcher.waiting():
            return
        now = monotonic()
        running = self._launcher.running()
        if running and all(assignment.began and now - assignment.began > _PATIENCE for assignment in running):
            self._window.collapse()
            self._hand_back(self._launcher.take_back())

    def _hand_back(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            if not assignment.dropped:
                self._begun -= 1
                self._refused.append(self._judge.released(assignment.delivery))
        self._launcher.wake()

    async def _shut_down(self, receive: asyncio.Task[None], loops: Sequence[asyncio.Task[None]]) -> None:
        launcher = self._launcher
        await _end(receive)
        if not self._at_most_once:
            self._hand_back(launcher.take_back())
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            async with asyncio.timeout(self._options.kill_time):
                await self._first(self._idle.wait(), hurry, *loops)
        except TimeoutError:
            pass
        finally:
            await _end(hurry)
        if not self._held or any(loop.done() for loop in loops):
            return
        for assignment in launcher.running():
            launcher.cancel(assignment, CancelReason.SHUTDOWN)
        if await self._settled_within(_GRACE, loops):
            return
        for assignment in launcher.running():
            if launcher.give_up(assignment):
                assignment.dropped = True
                self._stats.interrupted += 1
                self._refused.append(self._judge.cut_short(assignment.delivery, assignment.task))
        launcher.wake()
        await self._settled_within(_GRACE, loops)

    async def _settled_within(self, seconds: float, loops: Sequence[asyncio.Task[None]]) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._first(self._idle.wait(), *loops)
        return not self._held


def _stood_still(seconds: float, lease: float) -> None:
    _log.warning(
        "this process stood still for %s, and its leases last for %s: others may do what it held. If user code kept "
        "the interpreter to itself, as some C extensions do, it needs --isolation process",
        format_duration(round(seconds, 1)),
        format_duration(lease),
        extra={"event": "stood-still", "seconds": round(seconds, 3), "lease": lease},
    )


#: Results a line is logged for; the others are counted.
_NOTABLE = frozenset(("error", "alert", "dead", "retried"))


def _report(verdict: Verdict) -> None:
    assignment, task = verdict.assignment, verdict.task
    if assignment is not None:
        task = assignment.task
    outcome = assignment.outcome if assignment is not None else None
    _log.log(
        logging.INFO if verdict.result in ("retried", "error") else logging.WARNING,
        "a task ended: %s" if verdict.result != "retried" else "a task will be tried again: %s",
        verdict.result,
        extra={
            "event": f"task-{verdict.result}",
            "task_type": task.type if task else None,
            "task_id": task.id if task else None,
            "message_id": verdict.delivery.id,
            "attempt": verdict.delivery.attempt,
            "to": verdict.messages[0].topic if verdict.result == "dead" else None,
            "reason": (outcome.msg if outcome is not None else verdict.reason) or None,
        },
    )


async def _end(*tasks: asyncio.Future[object] | asyncio.Task[object] | asyncio.Task[None]) -> None:
    """Cancel these and wait until they have ended; what they raised is looked at elsewhere."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
