"""For the tests of your workers: do one task, without a bus, and look at what came of it.

done = do_task(HelloWorld, "world")
assert done.result == "complete"
assert done.msg == "hello world"
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from bus import Delivery
from task.assignment import Assignment
from task.codec import decode, encode, encode_done
from task.context import CancelReason, Context
from task.execute import begin, conclude, execute, fail
from task.outcome import Outcome
from task.task import Task
from task.worker import Launch, is_async, worker_type

__all__ = ["do_task", "outcome_of"]


def do_task(
    launch: Launch,
    task: Task | str = "",
    *,
    meta: Mapping[str, str] | None = None,
    attempt: int = 1,
    cancelled: CancelReason | None = None,
) -> Task:
    """The done task that this worker makes of ``task``, a Task or just its value.

    The task passes through the codec before and after, as it does on a bus. ``cancelled`` starts it already told to
    stop. An attempt that would be repeated or handed back looks like the ``error`` it would end with at last.
    """
    given = _task(launch, task, meta)
    assignment = _perform(launch, given, attempt, cancelled)
    outcome = assignment.outcome
    result, msg = (outcome.result.value, outcome.msg) if outcome is not None else ("error", assignment.reason)
    extra = outcome.meta if outcome is not None else None
    return decode(encode_done(given, result, msg, assignment.started, assignment.completed, extra))


def outcome_of(
    launch: Launch,
    task: Task | str = "",
    *,
    meta: Mapping[str, str] | None = None,
    attempt: int = 1,
    cancelled: CancelReason | None = None,
) -> Outcome | None:
    """The outcome itself, with ``retry_in`` and ``rejected``; None if the attempt was interrupted by a shutdown."""
    return _perform(launch, _task(launch, task, meta), attempt, cancelled).outcome


def _task(launch: Launch, task: Task | str, meta: Mapping[str, str] | None) -> Task:
    if isinstance(task, str):
        task = Task(worker_type(launch), task)
    if meta:
        task = task.replace(meta={**task.meta, **meta})
    return decode(encode(task))


def _perform(launch: Launch, task: Task, attempt: int, cancelled: CancelReason | None) -> Assignment:
    assignment = Assignment(Delivery(encode(task), "test", attempt), task, Context(task, attempt))
    if cancelled is not None:
        assignment.context._cancel(cancelled)
    if is_async(launch):
        asyncio.run(_await(launch, assignment))
    else:
        execute(launch, assignment)
    return assignment


async def _await(launch: Launch, assignment: Assignment) -> None:
    begin(assignment)
    try:
        outcome: Any = launch(assignment.task).do_task(assignment.context)
        if hasattr(outcome, "__await__"):
            outcome = await outcome
    except Exception as problem:  # as in an application, what user code raises is the outcome
        fail(assignment, problem)
    else:
        conclude(assignment, outcome)
