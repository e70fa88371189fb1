"""The noop worker, its ``do_task`` called directly."""

from __future__ import annotations

import time

import pytest

from task.context import CancelReason, Context
from task.errors import Interrupted
from task.outcome import Outcome, Result
from task.task import Task
from task.testing import outcome_of
from workers.noop import Noop


def do(value: str, id: str = "1") -> Outcome:
    task = Task("noop", value, id=id)
    return Noop(task).do_task(Context(task))


@pytest.mark.parametrize("value", ["", "anything", "?", "?colour=red", "a/b?duration=0&variance=0ms"])
def test_nothing_to_simulate_completes_at_once(value: str) -> None:
    """Without a duration nothing waits and the task is complete."""
    began = time.perf_counter()

    assert do(value) == Outcome(Result.COMPLETE)
    assert time.perf_counter() - began < 0.5


def test_duration_is_waited() -> None:
    """It takes at least as long as asked, less the variance."""
    began = time.perf_counter()

    assert do("?duration=40ms&variance=10ms").result is Result.COMPLETE
    assert time.perf_counter() - began >= 0.03


def test_cancelled_wait_is_interrupted() -> None:
    """A task told to stop does not sleep on."""
    task = Task("noop", "?duration=1h")
    ctx = Context(task)
    ctx._cancel(CancelReason.SHUTDOWN)

    with pytest.raises(Interrupted):
        Noop(task).do_task(ctx)


def test_failures_follow_the_rate_and_repeat() -> None:
    """About fail_rate of the tasks fail, and the same ones in every run."""
    first = [do("?fail_rate=0.2", id=str(n)).result for n in range(1000)]
    second = [do("?fail_rate=0.2", id=str(n)).result for n in range(1000)]

    assert first == second
    assert 150 < first.count(Result.ERROR) < 250
    assert do("?fail_rate=1").result is Result.ERROR


@pytest.mark.parametrize("result", list(Result))
def test_result_is_as_asked(result: Result) -> None:
    """result= names the result of a task that did not fail by chance."""
    assert do(f"?result={result}").result is result


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("duration=long", "duration: 'long' is not"),
        ("duration=-1s", "cannot be negative"),
        ("variance=-1s", "cannot be negative"),
        ("fail_rate=2", "fail_rate is from 0 to 1, not 2"),
        ("fail_rate=x", "fail-rate: 'x' is not a number"),
        ("result=great", "result: 'great' is not one of complete"),
    ],
)
def test_wrong_value_is_rejected(query: str, wrong: str) -> None:
    """A value that cannot be read rejects the task and says what is wrong with it."""
    outcome = outcome_of(Noop, "?" + query)

    assert outcome is not None
    assert outcome.rejected
    assert wrong in outcome.msg
