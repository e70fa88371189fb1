"""A plain function with typed arguments as a worker.

@worker("resize")
def resize(origin: str, width: int, dry_run: bool = False, *, ctx: Context) -> str:
    return f"resized {origin} to {width}"

run(resize)
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, get_type_hints

from task.context import Context
from task.errors import ParamsError, Reject, WorkerError
from task.outcome import Outcome, complete
from task.params import make_plan
from task.task import Task
from task.worker import Worker

__all__ = ["FunctionWorker", "worker"]


class FunctionWorker(Worker):
    """Base of the workers that :func:`worker` makes."""

    #: The function as it was written, to be called and tested as such.
    function: ClassVar[Callable[..., Any]]


def worker(type: str, *, strict: bool = False) -> Callable[[Callable[..., Any]], builtins.type[FunctionWorker]]:
    """Make the decorated ``def`` or ``async def`` a worker for tasks of ``type``.

    An argument annotated ``Task`` or ``Context`` is given that, ``value: str`` the task value as it is. All others are
    read from the task value as the fields of a parameters class are (:mod:`task.params`); with ``strict`` a query key
    that no argument has is wrong. A value that does not fit rejects the task: no retry can help it.

    The function returns an outcome, a text for ``complete``, or None.

    Raises:
        WorkerError: naming the argument that a task cannot give.
    """
    if callable(type) or not type:
        raise WorkerError('name the task type: @worker("resize")')

    def decorate(function: Callable[..., Any]) -> builtins.type[FunctionWorker]:
        arguments = _Arguments(function, strict)

        def do_task(self: FunctionWorker, ctx: Context) -> Outcome:
            return _outcome(arguments.name, function(**arguments.of(self.task, ctx)))

        async def do_task_async(self: FunctionWorker, ctx: Context) -> Outcome:
            return _outcome(arguments.name, await function(**arguments.of(self.task, ctx)))

        members = {
            "type": type,
            "function": staticmethod(function),
            "do_task": do_task_async if inspect.iscoroutinefunction(function) else do_task,
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
        }
        return builtins.type(function.__name__, (FunctionWorker,), members)

    return decorate


class _Arguments:
    """Where each argument of a function comes from."""

    def __init__(self, function: Callable[..., Any], strict: bool) -> None:
        if not inspect.isfunction(function):
            raise WorkerError(f"@worker(...) makes a worker of a function, not of {function!r}")
        self.name = name = function.__qualname__
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise WorkerError(f"{name} yields; a worker returns an outcome, a text or nothing")
        try:
            hints = get_type_hints(function, include_extras=True)
        except NameError as error:
            raise WorkerError(
                f"an annotation of {name} cannot be resolved: {error}; import it in the module, not under TYPE_CHECKING"
            ) from None
        self._strict = strict
        self._injected: dict[str, str] = {}
        fields = []
        for argument in inspect.signature(function).parameters.values():
            if argument.kind not in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
                shown = argument.replace(annotation=argument.empty)
                raise WorkerError(f"{name}: a task cannot fill {shown} ({argument.kind.description}); name it plainly")
            if argument.name not in hints:
                raise WorkerError(f"{name}: the argument {argument.name} needs a type annotation")
            hint = hints[argument.name]
            if hint is Task or hint is Context:
                self._injected[argument.name] = "task" if hint is Task else "context"
            elif argument.name == "value":
                if hint is not str:
                    raise WorkerError(f"{name}: the argument value is the task value as it is, annotate it with str")
                self._injected["value"] = "value"
            else:
                fields.append((argument.name, None, hint, _default(argument.default)))
        try:
            self._plan = make_plan(name, fields)
        except TypeError as error:
            raise WorkerError(str(error)) from None

    def of(self, task: Task, ctx: Context) -> dict[str, Any]:
        """The arguments for one task."""
        try:
            arguments = self._plan.read(task.value, strict=self._strict)
        except ParamsError as error:
            raise Reject(str(error)) from error
        sources = {"task": task, "context": ctx, "value": task.value}
        for name, source in self._injected.items():
            arguments[name] = sources[source]
        return arguments


def _default(value: Any) -> Callable[[], Any] | None:
    return None if value is inspect.Parameter.empty else lambda: value


def _outcome(name: str, returned: object) -> Outcome:
    if isinstance(returned, Outcome):
        return returned
    if returned is None:
        return complete()
    if isinstance(returned, str):
        return complete(returned)
    if inspect.iscoroutine(returned):
        returned.close()  # nobody will await it, and its collection would warn
    raise TypeError(f"{name} returned {type(returned).__name__}; return a text, None or an outcome such as error()")
