"""The trees of errors that the docstrings draw are those of the classes."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

import bus.errors
import task.errors
from bus import TaskbusError
from task.errors import DecodeError, RetryLater, TaskError

LINE = re.compile(r"^(?P<indent>[│ ]*)(?:[├└]── )?(?P<name>[A-Z]\w+)(?: {2,}| …|$)")


def drawn(module: ModuleType) -> set[tuple[str, str]]:
    """(class, base) of every line of the tree in the module's docstring."""
    pairs: set[tuple[str, str]] = set()
    path: list[tuple[int, str]] = []
    for line in (module.__doc__ or "").splitlines():
        match = LINE.match(line)
        if not match or ("─" not in line and line.strip().split()[0] != "TaskbusError"):
            continue
        depth = len(line) - len(line.lstrip("│├└─ "))
        while path and path[-1][0] >= depth:
            path.pop()
        if path:
            pairs.add((match["name"], path[-1][1]))
        path.append((depth, match["name"]))
    return pairs


def actual(module: ModuleType) -> set[tuple[str, str]]:
    """(class, base) of every error class the module defines, as they are."""
    found = (
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    )
    return {(cls.__name__, cls.__base__.__name__) for cls in found if cls.__base__ and issubclass(cls, TaskbusError)}


def test_bus_tree() -> None:
    """The tree in bus/errors.py shows every error class under its base."""
    assert drawn(bus.errors) == actual(bus.errors) - {("TaskbusError", "Exception")}


def test_task_tree() -> None:
    """The tree in task/errors.py shows every error class under its base."""
    assert drawn(task.errors) - {("BusError", "TaskbusError")} == actual(task.errors)


@pytest.mark.parametrize("module", [bus.errors, task.errors], ids=lambda module: module.__name__)
def test_all_is_complete(module: ModuleType) -> None:
    """Every error class is exported, sorted, and has a docstring for the person who meets it."""
    names = sorted(name for name, _ in actual(module))

    assert module.__all__ == names
    assert all(getattr(module, name).__doc__ for name in names)


def test_transient_in_the_tree() -> None:
    """The tree marks exactly the errors that say they are transient."""
    marked = {
        match["name"]
        for line in (bus.errors.__doc__ or "").splitlines()
        if "(transient)" in line and (match := LINE.match(line))
    }

    assert marked == {name for name in bus.errors.__all__ if vars(getattr(bus.errors, name)).get("transient")}


def test_decode_codes_are_documented() -> None:
    """A DecodeError carries its code, and the docstring lists the codes."""
    error = DecodeError("not-json", "not JSON: x")

    assert (error.code, str(error)) == ("not-json", "not JSON: x")
    for code in ("too-large", "not-json", "not-object", "no-type", "bad-field", "bad-time"):
        assert f"``{code}``" in (DecodeError.__doc__ or "")


def test_one_root() -> None:
    """Whoever catches TaskbusError catches everything raised on purpose."""
    assert issubclass(TaskError, TaskbusError)
    assert not issubclass(TaskError, bus.errors.BusError)


@pytest.mark.parametrize(("delay", "seconds"), [(5, 5.0), (0.5, 0.5), ("4h", 14400.0)])
def test_retry_later_delay(delay: float | str, seconds: float) -> None:
    """The delay is seconds, or a text like those of the settings."""
    assert RetryLater(delay).delay == seconds
    assert str(RetryLater(delay, "busy")) == "busy"
