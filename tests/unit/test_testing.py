"""The harness for users' tests does as an application does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from task import (
    Context,
    Outcome,
    Reject,
    Result,
    RetryLater,
    Task,
    Worker,
    WorkerError,
    complete,
    error,
    retry_later,
    worker,
)
from task.context import CancelReason
from task.testing import do_task, outcome_of
from tests.unit import engine


class Sync(Worker):
    type = "t"

    def do_task(self, ctx: Context) -> Outcome:
        ctx.meta["attempt"] = str(ctx.attempt)
        if ctx.cancelled:
            ctx.raise_if_cancelled()
        return complete(f"did {self.task.value}", k=self.task.meta.get("k", ""))


class Async(Sync):
    async def do_task(self, ctx: Context) -> Outcome:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().do_task(ctx)


BOTH = pytest.mark.parametrize("launch", [Sync, Async])


@BOTH
def test_a_value_is_enough(launch: type[Worker]) -> None:
    """The done task has type and value, result, message, meta and times."""
    done = do_task(launch, "v", meta={"k": "w"}, attempt=3)

    assert (done.type, done.value, done.result, done.msg) == ("t", "v", Result.COMPLETE, "did v")
    assert done.meta == {"k": "w", "attempt": "3"}
    assert done.started is not None
    assert done.completed is not None
    assert done.started <= done.completed


def test_a_task_of_your_own() -> None:
    """Everything it has is there, and given meta is added."""
    done = do_task(Sync, Task("t", "v", id="7", job="j", meta={"a": "1"}, extra={"color": "red"}), meta={"k": "w"})

    assert (done.id, done.job, done.extra) == ("7", "j", {"color": "red"})
    assert done.meta == {"a": "1", "k": "w", "attempt": "1"}


@BOTH
@pytest.mark.parametrize(
    ("reason", "outcome"),
    [(CancelReason.SHUTDOWN, None), (CancelReason.LEASE_LOST, "Interrupted: interrupted: lease-lost")],
)
def test_told_to_stop(launch: type[Worker], reason: CancelReason, outcome: str | None) -> None:
    """It starts already told; a shutdown leaves no outcome, and looks like an error."""
    found = outcome_of(launch, cancelled=reason)

    assert (found.msg if found else None) == outcome
    assert do_task(launch, cancelled=reason).result is Result.ERROR


def test_a_time_limit() -> None:
    """An interruption at it is a timeout."""
    assert str(do_task(Sync, cancelled=CancelReason.TIMEOUT).msg).startswith("timed out after")


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (ValueError("no"), error("ValueError: no")),
        (Reject("bad"), Outcome(Result.ERROR, "bad", rejected=True)),
        (RetryLater("4h", "soon"), retry_later("4h", "soon")),
    ],
)
def test_what_is_raised(problem: Exception, outcome: Outcome) -> None:
    """As in an application: the outcome, and in the done task the error it would end with at last."""

    def do(task: Task, ctx: Context) -> Any:
        raise problem

    assert outcome_of(engine.worker(do)) == outcome
    done = do_task(engine.worker(do))
    assert (done.result, done.msg) == (Result.ERROR, outcome.msg)


def test_nonsense() -> None:
    """A worker that returns no outcome fails its test."""
    assert "the worker returned int" in str(do_task(engine.worker(lambda task, ctx: 5)).msg)


def test_a_function_worker() -> None:
    """Its arguments are read from the value; one that does not fit is rejected."""

    @worker("resize")
    def resize(width: int) -> str:
        return f"resized to {width}"

    assert do_task(resize, "?width=3").msg == "resized to 3"
    rejected = outcome_of(resize, "?width=wide")
    assert rejected is not None
    assert rejected.rejected


def test_a_launch_function_needs_a_task() -> None:
    """What does not say its type cannot make a task of a value."""

    def launch(task: Task) -> Sync:
        return Sync(task)

    assert do_task(launch, Task("t", "v")).msg == "did v"
    with pytest.raises(WorkerError, match="does not say which task type it does"):
        do_task(launch, "v")


def test_a_launch_function_of_async_workers() -> None:
    """By its annotation it is known to be one."""

    def launch(task: Task) -> Any:
        return Async(task)

    launch.__annotations__["return"] = Async
    assert do_task(launch, Task("t", "v")).msg == "did v"


def test_what_a_bus_would_do_to_a_task() -> None:
    """It passes through the codec: what cannot be written fails here, not in production."""
    assert do_task(engine.worker(lambda task, ctx: complete("\ud800"))).msg == "?"
    assert do_task(engine.worker(lambda task, ctx: complete(n=5)), "v").meta == {"n": "5"}  # type: ignore[arg-type]
