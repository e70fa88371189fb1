"""Threads and loops that run user code, and what user code may do to them."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest

from bus import Delivery
from task import Context, Interrupted, Outcome, Reject, Result, RetryLater, Task, Worker, complete, error
from task.assignment import Assignment
from task.context import CancelReason
from task.execute import conclude, execute, fail, where
from task.slots import InlineSlots, Slots, ThreadSlots
from task.slots.thread import ThreadExecutor
from task.worker import is_async
from tests.helpers import wait_until
from tests.unit.engine import worker

KINDS = pytest.mark.parametrize("kind", ["thread", "inline"])


def assignment(value: str = "", limit: float | None = None) -> Assignment:
    task = Task("t", value)
    return Assignment(Delivery(b"", value), task, Context(task, 1, limit))


class Run:
    """Slots at work on ``do``, which gets task and context."""

    def __init__(self, kind: str, do: Callable[[Task, Context], Any], count: int = 1) -> None:
        self.ended: SimpleQueue[Assignment] = SimpleQueue()
        self.slots: Slots
        if kind == "thread":
            launch = worker(do)
            self.slots = ThreadSlots(count, lambda: ThreadExecutor(launch), self.ended.put)
        else:

            class Async(Worker):
                type = "t"

                async def do_task(self, ctx: Context) -> Outcome:
                    found = do(self.task, ctx)
                    found = await found if hasattr(found, "__await__") else found
                    return complete() if found is None else found

            self.slots = InlineSlots(count, Async, self.ended.put)
        self.slots.start()

    def end(self) -> Assignment:
        """The next that ends."""
        return self.ended.get(timeout=10)

    def do(self, value: str = "") -> Assignment:
        """One task, from start to end."""
        self.slots.submit([assignment(value)])
        return self.end()


@contextmanager
def run(kind: str, do: Callable[[Task, Context], Any] = lambda task, ctx: None, count: int = 1) -> Iterator[Run]:
    before = set(threading.enumerate())
    made = Run(kind, do, count)
    yield made
    made.slots.stop()
    wait_until(lambda: set(threading.enumerate()) <= before)


class Gate:
    """Lets a test see that tasks have begun, and say when they end."""

    def __init__(self) -> None:
        self.begun: SimpleQueue[str] = SimpleQueue()
        self.open = threading.Event()

    def __call__(self, task: Task, ctx: Context) -> None:
        self.begun.put(task.value)
        self.open.wait(20)


@KINDS
def test_in_order_with_times(kind: str) -> None:
    """One slot does what it is given in order, and notes when each began and ended."""
    with run(kind, lambda task, ctx: complete(task.value)) as r:
        r.slots.submit([assignment(str(n)) for n in range(100)])
        found = [r.end() for _ in range(100)]

    assert [each.outcome for each in found] == [complete(str(n)) for n in range(100)]
    assert all(0 < each.began <= each.ended and each.started <= each.completed for each in found)


@KINDS
def test_what_runs_and_what_waits(kind: str) -> None:
    """One runs, the others wait and can be taken back, in order; then they are not begun."""
    gate = Gate()
    with run(kind, gate) as r:
        mine = [assignment(str(n)) for n in range(4)]
        r.slots.submit(mine)
        assert gate.begun.get(timeout=10) == "0"
        assert (r.slots.running(), r.slots.waiting()) == (mine[:1], 3)
        assert r.slots.take_back() == mine[1:]
        assert (r.slots.take_back(), r.slots.waiting()) == ([], 0)
        gate.open.set()
        assert r.end() is mine[0]
        assert r.slots.running() == []

    assert gate.begun.empty()


def test_several_threads() -> None:
    """As many run side by side as there are slots."""
    barrier = threading.Barrier(3, timeout=10)
    with run("thread", lambda task, ctx: (barrier.wait(), None)[1], count=3) as r:
        r.slots.submit([assignment() for _ in range(6)])
        assert [r.end().outcome for _ in range(6)] == [complete()] * 6


def test_several_coroutines() -> None:
    """One that waits for long leaves the other slot to the other tasks."""

    async def sleep(task: Task) -> None:
        await asyncio.sleep(0 if task.value != "long" else 3600)

    with run("inline", lambda task, ctx: sleep(task), count=2) as r:
        long = assignment("long")
        r.slots.submit([long, *(assignment() for _ in range(50))])
        assert [r.end().outcome for _ in range(50)] == [complete()] * 50
        r.slots.cancel(long, CancelReason.SHUTDOWN)
        assert r.end() is long


def test_tasks_that_never_wait_give_others_a_turn() -> None:
    """A coroutine that waits for a moment ends long before 20,000 that never do have."""
    with run("inline", lambda task, ctx: asyncio.sleep(0.001) if task.value else None, count=2) as r:
        short = assignment("sleeps")
        r.slots.submit([short, *(assignment() for _ in range(20_000))])
        found = [r.end() for _ in range(20_001)]

    assert found.index(short) < 15_000


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def _raise(problem: BaseException) -> Callable[[Task, Context], None]:
    def do(task: Task, ctx: Context) -> None:
        raise problem

    return do


class Delayless(RetryLater):
    def __init__(self) -> None:
        pass


@KINDS
@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (ValueError("no"), error("ValueError: no")),
        (ValueError(), error("ValueError")),
        (SystemExit(3), error("SystemExit: 3")),
        (KeyboardInterrupt(), error("KeyboardInterrupt")),
        (GeneratorExit(), error("GeneratorExit")),
        (asyncio.CancelledError(), None),
        (RecursionError("deep"), error("RecursionError: deep")),
        (Unprintable(), error("Unprintable: (its text cannot be shown)")),
        (ValueError("x" * 5000), error("ValueError: " + "x" * 2000 + "…")),
        (RetryLater(5, "soon"), Outcome(Result.ERROR, "soon", None, 5.0)),
        (RetryLater(-5), Outcome(Result.ERROR, "to be retried later", None, 0.0)),
        (Delayless(), Outcome(Result.ERROR, "", None, 0.0)),
        (Reject("wrong"), Outcome(Result.ERROR, "wrong", rejected=True)),
        (Interrupted("told to"), error("Interrupted: told to")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_raised_ends_the_task(kind: str, problem: BaseException, outcome: Outcome | None) -> None:
    """It becomes the outcome, and the slot goes on."""
    with run(kind, lambda task, ctx: _raise(problem)(task, ctx) if task.value else None) as r:
        found = r.do("x").outcome
        assert r.do("").outcome == complete()

    assert found is not None
    assert found == outcome or outcome is None
    assert found.result is Result.ERROR


class Hostile:
    """Raises whenever it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__

    def close(self) -> None:
        raise AssertionError("what a worker returns is not ours to close")


@KINDS
@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (5, "the worker returned int"),
        (Hostile(), "the worker returned Hostile"),
        (complete, "the worker returned function"),
        (Outcome("fine"), "'fine' is not a valid Result"),  # type: ignore[arg-type]
        (Outcome(Result.COMPLETE, Hostile()), "cannot be used: RuntimeError: no"),  # type: ignore[arg-type]
        (complete(n=Hostile()), "cannot be used: RuntimeError: no"),  # type: ignore[arg-type]
        (Outcome(Result.COMPLETE, "", 5), "cannot be used: TypeError"),  # type: ignore[arg-type]
        (Outcome(Result.ERROR, "", None, "soon"), "cannot be used: ValueError"),  # type: ignore[arg-type]
        (Outcome(Result.ERROR, "", None, float("inf")), "it would never be tried again"),
    ],
)
def test_nonsense_ends_the_task_with_error(kind: str, returned: object, text: str) -> None:
    """It is told what was returned, and the slot goes on."""
    with run(kind, lambda task, ctx: returned if task.value else None) as r:
        found = r.do("x").outcome
        assert r.do("").outcome == complete()

    assert found is not None
    assert found.result is Result.ERROR
    assert text in found.msg


def test_an_outcome_is_put_right() -> None:
    """Numbers in meta and message become texts, a result by its name its value; ctx.meta stands below the outcome's."""
    made = assignment()
    made.context.meta.update({"a": "ctx", "b": 2})  # type: ignore[dict-item]
    conclude(made, Outcome("warn", 7, {"a": 1}))  # type: ignore[arg-type,dict-item]

    assert made.outcome == Outcome(Result.WARN, "7", {"a": "1", "b": "2"})


@KINDS
def test_told_to_stop(kind: str) -> None:
    """A running task learns why; what it then answers stands, but a shutdown counts no error against it."""
    gate = Gate()

    async def wait(task: Task, ctx: Context) -> Outcome:
        gate(task, ctx)
        await asyncio.sleep(3600)
        return complete()

    def do(task: Task, ctx: Context) -> Any:
        if kind == "inline":
            gate.open.set()
            return wait(task, ctx)
        gate.begun.put("")
        ctx.wait(20)
        ctx.raise_if_cancelled()
        return None

    for reason in (CancelReason.TIMEOUT, CancelReason.SHUTDOWN, CancelReason.LEASE_LOST):
        with run(kind, do) as r:
            mine = assignment()
            r.slots.submit([mine])
            gate.begun.get(timeout=10)
            r.slots.cancel(mine, reason)
            assert r.end() is mine
        assert mine.context.cancel_reason is reason
        if reason is CancelReason.SHUTDOWN:
            assert (mine.outcome, mine.reason) == (None, "interrupted by shutdown")
        else:
            assert mine.outcome is not None
            assert mine.outcome.result is Result.ERROR
            assert mine.outcome.msg.startswith("timed out after") is (reason is CancelReason.TIMEOUT)


def test_a_coroutine_that_refuses_to_be_cancelled() -> None:
    """Its answer stands, and the slot is as good as before."""

    async def stubborn(gate: threading.Event) -> Outcome:
        gate.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return complete("all the same")

    gate = threading.Event()
    with run("inline", lambda task, ctx: stubborn(gate) if task.value else asyncio.sleep(0)) as r:
        mine = assignment("x")
        r.slots.submit([mine])
        assert gate.wait(10)
        r.slots.cancel(mine, CancelReason.TIMEOUT)
        assert r.end().outcome == complete("all the same")
        assert r.do("").outcome == complete()


@KINDS
def test_a_task_whose_lease_was_lost_while_it_waited(kind: str) -> None:
    """It is not begun: another instance does it."""
    gate = Gate()
    with run(kind, gate) as r:
        first, lost, last = assignment("first"), assignment("lost"), assignment("last")
        r.slots.submit([first, lost, last])
        assert gate.begun.get(timeout=10) == "first"
        lost.dropped = True
        gate.open.set()
        assert [r.end(), r.end()] == [first, last]
        assert gate.begun.get(timeout=10) == "last"

    assert gate.begun.empty()
    assert lost.began == 0


@KINDS
def test_given_up(kind: str) -> None:
    """Its slot is free at once, it is never reported, and it counts as left behind until it ends."""
    gate = Gate()
    with run(kind, lambda task, ctx: gate(task, ctx) if task.value == "hang" else None) as r:
        mine, other = assignment("hang"), assignment("other")
        r.slots.submit([mine, other])
        gate.begun.get(timeout=10)
        assert r.slots.kill(mine) is True
        assert r.slots.kill(mine) is False
        assert r.end() is other
        assert (r.slots.running(), r.slots.abandoned()) == ([], 1)
        gate.open.set()
        wait_until(lambda: r.slots.abandoned() == 0)

    assert r.ended.empty()


@KINDS
def test_what_has_ended_cannot_be_given_up(kind: str) -> None:
    """Who comes too late is told."""
    with run(kind) as r:
        assert r.slots.kill(r.do()) is False


@KINDS
def test_exactly_one_decides(kind: str) -> None:
    """Given up at the moment it ends, a task is either reported or given up, never both and never neither."""
    gates = [threading.Event() for _ in range(200)]
    with run(kind, lambda task, ctx: gates[int(task.value)].wait(20) and None) as r:
        for number, gate in enumerate(gates):
            mine = assignment(str(number))
            r.slots.submit([mine])
            wait_until(lambda mine=mine: mine in r.slots.running())  # type: ignore[misc]
            gate.set()
            given_up = r.slots.kill(mine)
            if not given_up:
                assert r.end() is mine
        wait_until(lambda: r.slots.abandoned() == 0)
        assert r.ended.empty()


def test_a_worker_that_says_nothing_of_being_async() -> None:
    """A launch function that makes async workers is told what to do, without a warning about a lost coroutine."""

    class Async(Worker):
        async def do_task(self, ctx: Context) -> Outcome:
            return complete()

    def launch(task: Task) -> Worker:
        return Async(task)

    made = assignment()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        execute(launch, made)

    assert made.outcome is not None
    assert "do_task is async" in made.outcome.msg


def test_who_is_async() -> None:
    """A class, a launch function that says what it returns, a partial of either; else nobody knows."""
    from functools import partial

    class Async(Worker):
        async def do_task(self, ctx: Context) -> Outcome:
            return complete()

    def annotated(task: Task, n: int = 0) -> Async:
        return Async(task)

    def vague(task: Task) -> Worker:
        return Async(task)

    annotated.__annotations__["return"] = Async
    assert is_async(Async)
    assert is_async(annotated)
    assert is_async(partial(annotated, n=1))
    assert is_async(partial(Async))
    assert is_async(worker(lambda task, ctx: None)) is False
    assert is_async(vague) is None
    assert is_async(lambda task: vague(task)) is None  # noqa: PLW0108  (it is the lambda that is asked)


def test_where_a_worker_failed() -> None:
    """File and line, for the log."""
    with pytest.raises(ValueError, match="x") as caught:
        raise ValueError("x")
    assert where(caught.value).startswith(f"{__file__}:")
    assert where(ValueError()) == ""


def test_a_time_limit_that_was_told_by_an_interruption() -> None:
    """Only Interrupted at a time limit is a timeout; an error at that moment is that error."""
    for problem, text in ((Interrupted("x"), "timed out after"), (ValueError("x"), "ValueError: x")):
        made = assignment()
        made.context._cancel(CancelReason.TIMEOUT)
        fail(made, problem)
        assert made.outcome is not None
        assert made.outcome.msg.startswith(text)
