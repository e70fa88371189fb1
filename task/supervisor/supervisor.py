"""Keeping N children alive: restarts with backoff, rolling restarts, and one end for all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from time import monotonic

from task.exits import Exit
from task.retry import Backoff
from task.stats import Stats
from task.supervisor.child import Child, how_it_ended

__all__ = ["Slot", "Supervisor"]

_log = logging.getLogger("taskbus.supervisor")
#: Seconds before the first and the longest before any further restart of a process that ended by itself.
_FIRST, _LONGEST = 0.5, 30.0
#: Seconds a process must have lived for the next restart to be a first one again.
_STEADY = 60.0
#: Seconds beyond the kill time that a process gets to end before it is killed.
_MARGIN = 10.0
#: Exit codes from the mildest to the worst.
_WORSE = (Exit.OK, Exit.INTERRUPTED, Exit.STUCK, Exit.BUS, Exit.USAGE, Exit.FAILED)


class Slot:
    """One of the N places: the process that has it now, and what is known of those that had it before."""

    def __init__(self, number: int) -> None:
        self.number = number
        #: What ended processes had counted, and the living one. In one attribute, for readers on other threads.
        self.at: tuple[Stats, Child | None] = (Stats(), None)
        self.restarts = 0
        #: Ends in a row that nobody had asked for.
        self.failures = 0
        self.was_ready = False
        #: Whether its input has ended, so that no more process is needed here.
        self.finished = False
        self.last = ""
        self.code = Exit.OK
        self.woken = asyncio.Event()

    @property
    def child(self) -> Child | None:
        """The living process, if there is one."""
        return self.at[1]

    @property
    def ready(self) -> bool:
        """Whether its process does tasks right now."""
        child = self.child
        return child is not None and child.ready

    @property
    def state(self) -> str:
        """In a word or two, for people."""
        child = self.child
        if child is None:
            return "finished" if self.finished else "waiting to be restarted" if self.last else "starting"
        if child.stopping:
            return "stopping"
        if child.silent:
            return "silent"
        return "ready" if child.ready else "starting" if child.report is None else "not ready"


class Supervisor:
    """Runs ``command`` in ``count`` processes. ``run`` once; ``stop`` and ``roll`` from the same event loop.

    ``kill_time`` is what the children give their tasks on shutdown.
    """

    def __init__(self, command: Sequence[str], count: int, kill_time: float, *, backoff: Backoff | None = None) -> None:
        self.slots = [Slot(number) for number in range(1, count + 1)]
        self._command = command
        self._kill_time = kill_time
        self._backoff = backoff or Backoff("exponential", _FIRST, _LONGEST)
        self._stops = 0
        self._fatal: Exit | None = None
        self._killer: asyncio.TimerHandle | None = None
        self._event = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None
        self._again = False

    @property
    def stopping(self) -> bool:
        """Whether all are to end."""
        return self._stops > 0

    @property
    def ready(self) -> int:
        """How many processes do tasks right now."""
        return sum(slot.ready for slot in self.slots)

    async def run(self) -> Exit:
        """Keep the processes alive until their input has ended, one cannot start at all, or ``stop``."""
        try:
            async with asyncio.TaskGroup() as group:
                for slot in self.slots:
                    group.create_task(self._keep(slot))
        finally:
            if self._rolling is not None:
                self._rolling.cancel()
                await asyncio.gather(self._rolling, return_exceptions=True)
            if self._killer is not None:
                self._killer.cancel()
        return self._fatal or max((slot.code for slot in self.slots), key=_WORSE.index)

    def stop(self) -> None:
        """Stop all gracefully; a second call hastens."""
        self._stops += 1
        if self._stops <= 2:
            if self._killer is not None:
                self._killer.cancel()
            patience = _MARGIN + (self._kill_time if self._stops == 1 else 0)
            children = [slot.child for slot in self.slots]
            self._killer = asyncio.get_running_loop().call_later(patience, self._kill, *children)
        for slot in self.slots:
            if slot.child is not None:
                slot.child.stop()
            slot.woken.set()
        self._changed()

    def _kill(self, *children: Child | None) -> None:
        for child in children:
            if child is not None and child.alive:
                about = {"event": "process-killed", "process_": child.number, "pid": child.pid}
                _log.error("a process did not end in time and is killed", extra=about)
                child.kill()

    def roll(self) -> None:
        """Replace one process after the other, each by one that is ready before the next is stopped."""
        if self._stops:
            return
        if self._rolling is not None and not self._rolling.done():
            self._again = True  # what the first ones were started with may be older than this request
            return
        self._rolling = asyncio.create_task(self._roll())

    async def _roll(self) -> None:
        self._again = True
        while self._again and not self._stops:
            self._again = False
            _log.info("restarting one process after the other", extra={"event": "restarting"})
            for slot in self.slots:
                if not await self._replace(slot):
                    break
            else:
                _log.info("every process was restarted", extra={"event": "restarted"})
                continue
            if not self._stops:
                text = "the new process did not become ready; the others are left as they are"
                _log.error(text, extra={"event": "restart-failed", **_about(slot)})

    async def _replace(self, slot: Slot) -> bool:
        """Whether ``slot`` has a new process that is ready, or needs none."""
        old = slot.child
        if old is None:
            slot.woken.set()  # it need not wait any longer to be started again
        else:
            old.stop()
        killer = asyncio.get_running_loop().call_later(self._kill_time + _MARGIN, self._kill, old)
        await self._until(lambda: slot.finished or slot.child not in (None, old))
        killer.cancel()
        new = slot.child
        if slot.finished or new is None:
            return slot.finished
        await self._until(lambda: slot.child is not new or new.was_ready)
        return new.was_ready or slot.finished

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for this, or until there is no more to wait for."""
        while not condition() and not self._stops and not all(slot.finished for slot in self.slots):
            await self._event.wait()

    def _changed(self) -> None:
        self._event.set()
        self._event.clear()

    async def _keep(self, slot: Slot) -> None:
        """Have a process in ``slot`` until no more is needed."""
        while not self._stops:
            slot.woken.clear()
            child = Child(slot.number, self._changed)
            slot.at = (slot.at[0], child)
            self._changed()
            try:
                code = await child.run(self._command)
                slot.last = how_it_ended(code)
            except OSError as error:
                code = Exit.FAILED
                slot.last = f"could not be started ({error})"
            slot.was_ready = slot.was_ready or child.was_ready
            slot.at = (child.stats(slot.at[0]), None)
            self._changed()
            if self._stops:
                slot.code = _code_of(child, code)
            elif code == Exit.OK and child.ended == "input":
                slot.finished = True
                _log.info(
                    "a process has come to the end of the input",
                    extra={"event": "process-finished", **_about(slot, child)},
                )
                self._changed()
                return
            elif self._is_fatal(slot, child, code):
                self._fatal = Exit(code) if code in (Exit.USAGE, Exit.BUS) else Exit.FAILED
                _log.error(
                    "a process %s; stopping", slot.last, extra={"event": "process-failed", **_about(slot, child)}
                )
                if child.report is None and code == Exit.OK:
                    _log.error("started again, this program does not come to its worker")
                self.stop()
            else:
                await self._before_restart(slot, child, code)

    def _is_fatal(self, slot: Slot, child: Child, code: int) -> bool:
        """Whether to start it again would only do the same again."""
        if child.stopping:
            return False
        if code == Exit.OK and child.report is None:
            return True  # the program does not come to its worker when it is started again
        if slot.was_ready:
            return code == Exit.USAGE and not self.ready
        return code in (Exit.USAGE, Exit.BUS)

    async def _before_restart(self, slot: Slot, child: Child, code: int) -> None:
        slot.restarts += 1
        wanted = child.stopping or (code == Exit.OK and child.ended in ("lifetime", "stopped"))
        if wanted:
            slot.failures = 0
            _log.info(
                "a process %s and is replaced", slot.last, extra={"event": "process-ended", **_about(slot, child)}
            )
            return
        slot.failures = 1 if monotonic() - child.began >= _STEADY else slot.failures + 1
        delay = self._backoff.delay(slot.failures)
        _log.warning(
            "a process %s and is started again",
            slot.last,
            extra={"event": "process-ended", **_about(slot, child), "seconds": round(delay, 2)},
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await slot.woken.wait()


def _code_of(child: Child, code: int) -> Exit:
    """The exit code of an application that was stopped."""
    if child.report is None:
        return Exit.OK  # it had begun nothing
    try:
        return Exit(code)
    except ValueError:
        # Killed, it leaves its tasks to others; whatever else it ended with, it was not as it should.
        return Exit.INTERRUPTED if code < 0 else Exit.FAILED


def _about(slot: Slot, child: Child | None = None) -> dict[str, object]:
    child = child or slot.child
    return {"process_": slot.number, "pid": child.pid if child else None}
