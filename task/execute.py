"""Running user code for one task, and reading what came of it."""

from __future__ import annotations

import inspect
import logging
import sys
import traceback
from math import inf
from time import monotonic
from types import FrameType

from bus.units import format_duration
from task.assignment import Assignment
from task.context import CancelReason
from task.errors import Interrupted, ParamsError, Reject, RetryLater
from task.outcome import Outcome, Result, complete, error, reject
from task.times import now_text
from task.worker import Launch

__all__ = ["begin", "conclude", "execute", "fail", "where"]

_log = logging.getLogger("taskbus.worker")
_COMPLETE = complete()
#: Longest message of an exception that is put into a done task.
_LONGEST = 2000


def execute(launch: Launch, assignment: Assignment) -> None:
    """Run a synchronous worker on the calling thread. Raises nothing, whatever the worker does."""
    begin(assignment)
    try:
        outcome = launch(assignment.task).do_task(assignment.context)
    except BaseException as problem:  # user code may raise anything, SystemExit included; none may end this thread
        fail(assignment, problem)
    else:
        conclude(assignment, outcome)


def begin(assignment: Assignment) -> None:
    """Note that the attempt starts now."""
    assignment.began = now = monotonic()
    assignment.started = now_text()
    if assignment.context._limit is not None:
        assignment.context._begin(now)


def conclude(assignment: Assignment, outcome: object) -> None:
    """Note what the worker returned."""
    meta = assignment.context._meta
    if outcome is _COMPLETE and not meta:
        assignment.outcome = _COMPLETE  # nothing about it can be wrong: most tasks end so
    else:
        assignment.outcome = _judged(assignment, outcome, meta)
    assignment.ended = monotonic()
    assignment.completed = now_text()


def _judged(assignment: Assignment, outcome: object, meta: dict[str, str] | None) -> Outcome | None:
    """The outcome that counts; None where a shutdown interrupted the task."""
    if type(outcome) is not Outcome:
        outcome = error(_no_outcome(outcome))
    if (
        meta
        or outcome.meta is not None
        or outcome.retry_in is not None
        or type(outcome.result) is not Result
        or type(outcome.msg) is not str
    ):
        outcome = _checked(outcome, meta)
    interrupted = assignment.context.cancel_reason is CancelReason.SHUTDOWN
    if interrupted and outcome.result is Result.ERROR and not outcome.rejected:
        assignment.reason = "interrupted by shutdown"
        return None
    return outcome


def fail(assignment: Assignment, problem: BaseException) -> None:
    """Note that the worker raised ``problem``."""
    if isinstance(problem, RetryLater):
        outcome = Outcome(Result.ERROR, _text(problem), None, getattr(problem, "delay", 0.0))
    elif isinstance(problem, (Reject, ParamsError)):
        outcome = reject(_text(problem))
    elif isinstance(problem, Interrupted) and assignment.context.cancel_reason is CancelReason.TIMEOUT:
        outcome = timed_out(assignment)
    else:
        outcome = error(f"{_name(problem)}: {_text(problem)}".removesuffix(": "))
        if not isinstance(problem, Interrupted):
            _log.error(
                "the worker raised %s", _name(problem), exc_info=problem, extra=_fields(assignment, where(problem))
            )
    conclude(assignment, outcome)


def timed_out(assignment: Assignment) -> Outcome:
    """The outcome of a task that ran into its time limit."""
    return error(f"timed out after {format_duration(round(monotonic() - assignment.began, 3))}")


def where(problem: BaseException) -> str:
    """``file.py:12`` of the line that raised ``problem``; empty if it has no traceback."""
    frames = traceback.extract_tb(problem.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def stuck_at(thread_id: int | None) -> str:
    """``file.py:12`` of the line a thread is executing right now, for telling where a worker hangs."""
    frame: FrameType | None = sys._current_frames().get(thread_id) if thread_id is not None else None
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""


def _no_outcome(returned: object) -> str:
    if inspect.iscoroutine(returned):
        returned.close()  # nobody will await it, and it would warn when it is collected
        return (
            "do_task is async, but the launch function does not tell: annotate what it returns, as in "
            "def launch(task: Task) -> MyWorker, or give --isolation inline"
        )
    return f"the worker returned {_name(returned)}, not an outcome such as complete(), error() or retry_later()"


def _checked(outcome: Outcome, meta: dict[str, str] | None) -> Outcome:
    """The same with ``meta`` below its own, every text a text; an error where a part of it is nothing of the kind."""
    try:
        result, msg = Result(outcome.result), str(outcome.msg)
        texts = {str(key): str(value) for key, value in {**(meta or {}), **(outcome.meta or {})}.items()}
        delay = None if outcome.retry_in is None else max(0.0, float(outcome.retry_in))
        if delay == inf:
            raise ValueError("it would never be tried again")
    except Exception as problem:  # its parts are objects of the user, which may do anything when they are looked at
        return error(f"the worker returned an outcome that cannot be used: {_name(problem)}: {_text(problem)}")
    return Outcome(result, msg, texts or None, delay, bool(outcome.rejected))


def _fields(assignment: Assignment, place: str) -> dict[str, object]:
    task = assignment.task
    return {"task_type": task.type, "task_id": task.id, "attempt": assignment.delivery.attempt, "at": place}


def _name(value: object) -> str:
    return type(value).__name__ if value is not None else "None"


def _text(problem: BaseException) -> str:
    try:
        text = str(problem)
    except Exception:  # an exception class of the user may fail to print itself
        text = "(its text cannot be shown)"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
