"""Plain functions with typed arguments as workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from task import Context, Outcome, Task, Worker, complete, error
from task import worker as exported
from task.errors import ParamsError, Reject, WorkerError
from task.function import FunctionWorker, worker
from task.load import target_of
from task.outcome import Result
from task.params import Seconds
from task.testing import do_task, outcome_of
from task.worker import is_async, worker_type


@worker("resize")
def resize(origin: str, width: int, dry_run: bool = False, *, formats: list[str] = ["jpg"]) -> str:  # noqa: B006
    """Resize a picture."""
    return f"{origin} to {width} {formats}{' not really' if dry_run else ''}"


@worker(type="nap")
async def nap(wait: Seconds, ctx: Context, task: Task, value: str) -> Outcome:
    """Sleep a little."""
    await asyncio.sleep(0)
    return complete(f"{wait} {ctx.attempt} {task.id} {value}")


def run(launch: type[FunctionWorker], value: str, **fields: Any) -> Outcome:
    """What a worker says of a task of this value."""
    task = Task(launch.type, value, **fields)
    said = launch(task).do_task(Context(task, attempt=3))
    if isinstance(said, Outcome):
        return said

    async def wait() -> Outcome:
        return await said

    return asyncio.run(wait())


def test_arguments_come_from_the_value() -> None:
    """Arguments are read by name from the parts and the query, defaults stand for what is absent."""
    assert run(resize, "s3://b/cat.jpg?width=64") == complete("s3://b/cat.jpg to 64 ['jpg']")
    assert run(resize, "a?width=64&dry-run&formats=png,gif&x") == complete("a to 64 ['png', 'gif'] not really")


def test_injected_arguments() -> None:
    """A Task, a Context and ``value`` are given as they are, to an async function too."""
    assert run(nap, "?wait=250ms", id="i") == complete("0.25 3 i ?wait=250ms")


def test_is_a_worker_class() -> None:
    """What the decorator makes serves wherever a Worker class does."""
    assert issubclass(resize, Worker)
    assert (worker_type(resize), worker_type(nap)) == ("resize", "nap")
    assert (is_async(resize), is_async(nap)) == (False, True)
    assert do_task(resize, "a?width=5").msg == "a to 5 ['jpg']"
    assert do_task(nap, "?wait=1").result is Result.COMPLETE


def test_keeps_the_function() -> None:
    """The function can be called as it was written, and gives the worker its name and docstring."""
    assert resize.function("a", 5) == "a to 5 ['jpg']"
    assert (resize.__name__, resize.__doc__, resize.__module__) == ("resize", "Resize a picture.", __name__)
    assert target_of(resize).endswith(":resize")


def test_exported_under_its_name() -> None:
    """``from task import worker`` gives the decorator, not the module that has the same name."""
    assert exported is worker


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [(None, complete()), ("done", complete("done")), ("", complete("")), (error("no", a="b"), error("no", a="b"))],
)
def test_returned(returned: object, outcome: Outcome) -> None:
    """None and a text mean complete, an outcome is one."""

    @worker("t")
    def give() -> Any:
        return returned

    @worker("t")
    async def give_later() -> Any:
        return returned

    assert run(give, "") == outcome
    assert run(give_later, "") == outcome


@pytest.mark.parametrize("returned", [5, True, b"x", ["x"], Result.COMPLETE.encode()])
def test_returned_nonsense(returned: object) -> None:
    """Anything else is a TypeError that names the function and what it returned."""

    @worker("t")
    def nonsense() -> Any:
        return returned

    with pytest.raises(TypeError, match=rf"nonsense returned {type(returned).__name__}; return a text, None or an"):
        run(nonsense, "")


def test_returned_coroutine() -> None:
    """A coroutine returned by a plain function is nonsense too, and is not left to warn."""

    async def later() -> None: ...

    @worker("t")
    def nonsense() -> Any:
        return later()

    with pytest.raises(TypeError, match="nonsense returned coroutine"):
        run(nonsense, "")


def test_wrong_value_is_rejected() -> None:
    """A value that does not fit rejects the task, telling all that is wrong and naming the function."""
    with pytest.raises(Reject, match=r"does not fit resize: origin: missing.*; width: 'x' is not a whole number"):
        run(resize, "?width=x")
    with pytest.raises(Reject, match="wait: 'soon'"):
        run(nap, "?wait=soon")


def test_wrong_value_is_never_retried() -> None:
    """The engine takes such a task as rejected."""
    outcome = outcome_of(resize, "?width=x")

    assert outcome is not None
    assert (outcome.result, outcome.rejected) == (Result.ERROR, True)


def test_strict() -> None:
    """With ``strict`` a query key that no argument has is wrong."""

    @worker("t", strict=True)
    def careful(width: int = 5) -> None: ...

    assert run(careful, "?width=6") == complete()
    with pytest.raises(Reject, match="wdith: there is no such parameter; did you mean 'width'"):
        run(careful, "?wdith=6")


@pytest.mark.parametrize("raised", [ParamsError("x"), ValueError("x"), Reject("x")])
def test_exceptions_pass(raised: Exception) -> None:
    """What the function raises is the launcher's to judge."""

    @worker("t")
    def fails() -> None:
        raise raised

    with pytest.raises(type(raised)) as caught:
        run(fails, "")

    assert caught.value is raised


def positional(a: int, /) -> None: ...
def starred(*a: int) -> None: ...
def keywords(**a: int) -> None: ...
def untyped(a) -> None: ...  # type: ignore[no-untyped-def]
def untyped_default(a=5) -> None: ...  # type: ignore[no-untyped-def]
def wrong_value(value: int) -> None: ...
def wrong_type(a: object) -> None: ...
def wrong_part(path: list[int]) -> None: ...
def clear_password(password: str) -> None: ...
def unknown_type(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def generator() -> Iterator[str]:
    yield ""


async def async_generator() -> AsyncIterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (positional, r"positional: a task cannot fill a \(positional-only\)"),
        (starred, r"starred: a task cannot fill \*a \(variadic positional\)"),
        (keywords, r"keywords: a task cannot fill \*\*a \(variadic keyword\)"),
        (untyped, "untyped: the argument a needs a type annotation"),
        (untyped_default, "untyped_default: the argument a needs a type annotation"),
        (wrong_value, "wrong_value: the argument value is the task value as it is, annotate it with str"),
        (wrong_type, r"wrong_type\.a: object cannot stand in a task value"),
        (wrong_part, r"wrong_part\.path: the path of a task value is one value"),
        (clear_password, r"clear_password\.password: annotate a password with bus\.Secret"),
        (unknown_type, "an annotation of unknown_type cannot be resolved: name 'Nowhere' is not defined"),
        (generator, "generator yields"),
        (async_generator, "async_generator yields"),
        (len, "built-in function len"),
        (Task, "class 'task.task.Task'"),
    ],
)
def test_wrong_functions(function: Callable[..., Any], told: str) -> None:
    """A function whose arguments a task cannot give is refused when decorated, naming the argument."""
    with pytest.raises(WorkerError, match=told):
        worker("t")(function)


@pytest.mark.parametrize("type_", [positional, "", None])
def test_without_type(type_: Any) -> None:
    """Forgetting the task type is told when decorating."""
    with pytest.raises(WorkerError, match=r'name the task type: @worker\("resize"\)'):
        worker(type_)
