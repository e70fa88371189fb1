"""The part of a worker application that the user writes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import ClassVar, get_type_hints

from task.context import Context
from task.errors import WorkerError
from task.outcome import Outcome
from task.task import Task

__all__ = ["Launch", "Worker", "worker_type"]


class Worker:
    """Does one task. A new instance is made for every attempt.

    Set ``type`` and write ``do_task``, as ``def`` or ``async def``. ``self.task`` is the task. An exception raised in
    ``do_task`` ends the attempt with ``error`` and its text; ``RetryLater`` and ``Reject`` have their own meaning.
    """

    #: The task type it does, by default also the topic it receives from.
    type: ClassVar[str] = ""

    def __init__(self, task: Task) -> None:
        self.task = task

    def do_task(self, ctx: Context) -> Outcome | Awaitable[Outcome]:
        """Do ``self.task`` and say how it went."""
        raise NotImplementedError(f"{type(self).__name__} needs a do_task method")


#: Makes the worker for a task. A Worker class is one; write a function to hand in a database, a client, a test double.
Launch = Callable[[Task], Worker]


def worker_type(launch: Launch, given: str | None = None) -> str:
    """The task type that ``launch`` does: ``given``, or its ``type`` attribute.

    Raises:
        WorkerError: if neither says.
    """
    found = given or getattr(launch, "type", "")
    if not isinstance(found, str) or not found:
        name = getattr(launch, "__qualname__", repr(launch))
        raise WorkerError(f"{name} does not say which task type it does: set its `type`, or give --type")
    return found


def is_async(launch: Launch) -> bool | None:
    """Whether its ``do_task`` is a coroutine function; None where only making a worker can tell.

    A launch function may say so by its annotation: ``def launch(task: Task) -> MyWorker``.
    """
    if isinstance(launch, functools.partial):
        launch = launch.func
    method = getattr(launch, "do_task", None)
    if method is None:
        try:
            made = get_type_hints(launch).get("return")
        except Exception:  # a callable object, or an annotation of the user's that cannot be evaluated
            made = None
        method = None if made is Worker else getattr(made, "do_task", None)
    return None if method is None else inspect.iscoroutinefunction(method)
