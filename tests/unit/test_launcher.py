"""The launcher: collecting what ended, recording it, and time limits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from bus import Delivery
from task import Context, Outcome, Task, Worker, WorkerError, complete, error, retry_later
from task.assignment import Assignment
from task.context import CancelReason
from task.execute import begin, conclude
from task.launcher import Launcher, make_slots
from task.options import WorkerOptions
from task.slots import InlineSlots, Slots, ThreadSlots
from task.slots.thread import ThreadExecutor
from tests.unit.engine import worker

QUICK = worker(lambda task, ctx: None)


class Async(Worker):
    type = "t"

    async def do_task(self, ctx: Context) -> Outcome:
        return complete()


class FakeSlots(Slots):
    """Runs nothing: the test says what runs, and sees what it is told."""

    def __init__(self) -> None:
        self.now: list[Assignment] = []
        self.cancelled: list[tuple[Assignment, CancelReason]] = []
        self.killed: list[Assignment] = []

    def start(self) -> None:
        pass

    def submit(self, assignments: Sequence[Assignment]) -> None:
        self.now += assignments

    def take_back(self) -> list[Assignment]:
        return []

    def running(self) -> list[Assignment]:
        return self.now

    def waiting(self) -> int:
        return 0

    def cancel(self, assignment: Assignment, reason: CancelReason) -> None:
        assignment.context._cancel(reason)
        self.cancelled.append((assignment, reason))

    def kill(self, assignment: Assignment) -> bool:
        if assignment not in self.now:
            return False
        self.now.remove(assignment)
        self.killed.append(assignment)
        return True

    def abandoned(self) -> int:
        return 0

    def stop(self) -> None:
        pass


class Notebook:
    """A recorder that only notes."""

    def __init__(self) -> None:
        self.noted: list[Assignment] = []

    def record(self, assignment: Assignment) -> None:
        self.noted.append(assignment)


def assignment(outcome: Outcome | None = None, *, ran: float | None = None) -> Assignment:
    """One that ended with ``outcome``, or that has run for ``ran`` seconds."""
    task = Task("t")
    made = Assignment(Delivery(b"", "1"), task, Context(task))
    if ran is not None:
        begin(made)
        made.began -= ran
    if outcome is not None:
        conclude(made, outcome)
    return made


def limited(**options: Any) -> tuple[Launcher, FakeSlots]:
    """A launcher with these time limits over slots that run nothing."""
    launcher, slots = Launcher(QUICK, WorkerOptions(**options)), FakeSlots()
    launcher._slots = slots
    return launcher, slots


def test_what_ends_is_collected() -> None:
    """From any thread, in order, with one waking for all that ended before; what was dropped is left out."""

    async def scenario() -> None:
        launcher, _ = limited()
        launcher.start()
        mine = [assignment(complete(str(n))) for n in range(100)]
        mine[50].dropped = True

        def end_all() -> None:
            for each in mine:
                launcher.ended(each)

        thread = threading.Thread(target=end_all)
        thread.start()
        found: list[Assignment] = []
        async with asyncio.timeout(10):
            while len(found) < 99:
                await launcher.wait()
                found += launcher.collect()
        thread.join()

        assert found == mine[:50] + mine[51:]
        assert launcher.collect() == []

    asyncio.run(scenario())


@pytest.mark.parametrize("launch", [QUICK, Async])
def test_a_brief_task_has_ended_at_once(launch: type[Worker]) -> None:
    """The loop gives it the moment it takes, rather than be woken for it; what takes longer wakes it as ever."""

    async def scenario() -> None:
        launcher = Launcher(launch, WorkerOptions())
        launcher.start()
        try:
            at_once = 0
            for _ in range(100):
                mine = assignment()
                launcher.submit([mine], brief=True)
                if found := launcher.collect():
                    at_once += 1
                else:  # the machine was busy
                    await launcher.wait()
                    found = launcher.collect()
                assert found == [mine]
            assert at_once > 0
        finally:
            launcher.stop()

    asyncio.run(scenario())


def test_one_that_is_not_brief_after_all() -> None:
    async def scenario() -> None:
        go = threading.Event()
        launcher = Launcher(worker(lambda task, ctx: go.wait(20)), WorkerOptions())
        launcher.start()
        mine = assignment()
        launcher.submit([mine], brief=True)
        assert launcher.collect() == []
        go.set()
        async with asyncio.timeout(20):
            await launcher.wait()
        assert launcher.collect() == [mine]
        launcher.stop()

    asyncio.run(scenario())


def test_wake() -> None:
    """Somebody else may make the wait return; nothing has ended then."""

    async def scenario() -> None:
        launcher, _ = limited()
        launcher.start()
        launcher.wake()
        async with asyncio.timeout(10):
            await launcher.wait()
        assert launcher.collect() == []

    asyncio.run(scenario())


def test_what_ends_when_the_application_has_gone() -> None:
    """A thread that was left behind ends quietly."""
    launcher, _ = limited()

    async def scenario() -> None:
        launcher.start()

    asyncio.run(scenario())
    launcher.ended(assignment(complete()))


@pytest.mark.parametrize(
    ("outcome", "retries", "recording", "noted"),
    [
        (complete(), 0, True, True),
        (complete(), 0, False, False),
        (error("no"), 0, True, True),
        (error("no"), 1, True, False),
        (complete(), 1, True, True),
        (None, 0, True, False),
    ],
)
def test_what_is_recorded(outcome: Outcome | None, retries: int, recording: bool, noted: bool) -> None:
    """Outcomes that end a task, while more may be done than is settled."""
    launcher, notebook = Launcher(QUICK, WorkerOptions(retries=retries)), Notebook()

    async def scenario() -> None:
        launcher._slots = FakeSlots()
        launcher.start(notebook)  # type: ignore[arg-type]
        launcher.recording = recording
        launcher.ended(assignment(outcome))

    asyncio.run(scenario())
    assert bool(notebook.noted) is noted


def test_the_time_limit_is_told_once() -> None:
    """A task past it is told to stop; one within it, and one that was told already, is not."""
    launcher, slots = limited(timeout=5.0)
    short, long = assignment(ran=4.0), assignment(ran=6.0)
    slots.now = [short, long]
    launcher.enforce_limits()
    launcher.enforce_limits()

    assert slots.cancelled == [(long, CancelReason.TIMEOUT)]
    assert slots.killed == []


@pytest.mark.parametrize(
    ("options", "hard"),
    [
        ({"timeout": 5.0, "kill_time": 3.0}, 8.0),
        ({"timeout": 5.0, "hard_timeout": 6.0}, 6.0),
        ({"hard_timeout": 2.0}, 2.0),
    ],
)
def test_the_hard_limit_gives_up(options: dict[str, float], hard: float) -> None:
    """Then the slot is freed and the task ends with error; by default after the kill time more."""
    launcher, slots = limited(**options)
    within, past = assignment(ran=hard - 0.5), assignment(ran=hard + 0.5)
    slots.now = [within, past]
    launcher.enforce_limits()

    assert slots.killed == [past]
    assert launcher.collect() == [past]
    assert past.outcome is not None
    assert past.outcome.msg.startswith("timed out after")
    assert past.context.cancel_reason is CancelReason.TIMEOUT
    assert past.completed


def test_what_was_told_to_stop_for_another_reason_is_given_up_too() -> None:
    """A shutdown does not suspend the hard limit, and what it cuts short is handed back."""
    launcher, slots = limited(hard_timeout=1.0)
    mine = assignment(ran=2.0)
    slots.now = [mine]
    slots.cancel(mine, CancelReason.SHUTDOWN)
    launcher.enforce_limits()

    assert launcher.collect() == [mine]
    assert (mine.outcome, mine.reason) == (None, "interrupted by shutdown")


def test_what_has_not_begun_is_not_late() -> None:
    """A task whose process still loads the worker has no time to exceed."""
    launcher, slots = limited(timeout=0.001, hard_timeout=0.002)
    slots.now = [assignment()]
    time.sleep(0.003)
    launcher.enforce_limits()

    assert (slots.cancelled, slots.killed) == ([], [])


def test_without_limits_nothing_is_looked_at() -> None:
    """A task may run for ever."""
    launcher, slots = limited()
    slots.now = [assignment(ran=1e9)]
    launcher.enforce_limits()

    assert (slots.cancelled, slots.killed) == ([], [])


def _launch(task: Task) -> Worker:
    return Async(task)


def made(launch: Any, isolation: str) -> Slots:
    options = WorkerOptions(isolation=isolation, max_in_progress=3)
    return make_slots(launch, options, Launcher(QUICK, WorkerOptions()))


@pytest.mark.parametrize(
    ("launch", "isolation", "kind"),
    [
        (QUICK, "auto", ThreadSlots),
        (QUICK, "thread", ThreadSlots),
        (QUICK, "inline", InlineSlots),
        (Async, "auto", InlineSlots),
        (Async, "inline", InlineSlots),
        (Async, "process", ThreadSlots),
        (_launch, "auto", ThreadSlots),
        (_launch, "inline", InlineSlots),
    ],
)
def test_where_a_worker_runs(launch: Any, isolation: str, kind: type[Slots]) -> None:
    """Async workers inline, others in threads, unless it is said."""
    assert type(made(launch, isolation)) is kind


def test_an_async_worker_in_a_thread() -> None:
    """There is no loop for it: that is said before anything is received."""
    with pytest.raises(WorkerError, match="leave --isolation at auto"):
        made(Async, "thread")


def test_a_worker_that_another_process_cannot_find() -> None:
    """A function within a function is told to be moved, before anything is received."""
    with pytest.raises(WorkerError, match="at the top of a module"):
        made(QUICK, "process")


def test_an_inline_worker_that_is_not_async() -> None:
    """It runs all the same, on the loop's thread."""
    ended: SimpleQueue[Assignment] = SimpleQueue()
    slots = InlineSlots(1, QUICK, ended.put)
    slots.start()
    slots.submit([assignment()])

    assert ended.get(timeout=10).outcome == complete()
    slots.stop()


def test_retry_later_is_recorded_by_nobody() -> None:
    """The recorder itself leaves out what is to be repeated: see test_recorder."""
    launcher, notebook = Launcher(QUICK, WorkerOptions()), Notebook()
    launcher._recorder, launcher.recording = notebook, True  # type: ignore[assignment]
    launcher.ended(assignment(retry_later(1)))

    assert [each.outcome for each in notebook.noted] == [retry_later(1)]


def test_thread_executors_cannot_kill() -> None:
    """What runs in a thread is left behind."""
    assert ThreadExecutor(QUICK).kill() is False
