"""The task object: what it holds, that it does not change, and its ids."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest

from task.codec import decode, encode
from task.outcome import Result
from task.task import Dialect, Task, derive_id, new_id

NOON = datetime(2017, 10, 28, 12, tzinfo=UTC)


class Key(StrEnum):
    WORKFLOW = "workflow"


def test_defaults() -> None:
    """A new task has a type, an empty value, an id of its own and the time, and nothing else."""
    before = datetime.now(UTC) - timedelta(milliseconds=1)

    task = Task("t")

    assert (task.type, task.value, task.job, task.meta, task.extra) == ("t", "", None, {}, {})
    assert (task.result, task.msg, task.started, task.completed) == (None, "", None, None)
    assert task.created is not None
    assert before <= task.created <= datetime.now(UTC)
    assert task.id
    assert task.dialect is Dialect.TASKBUS


def test_fields() -> None:
    """What is given is what it holds."""
    task = Task("t", "v", job="j", created=NOON, id="i", meta={"a": "1"}, extra={"x": [1]}, dialect=Dialect.GO)

    assert (task.type, task.value, task.job, task.created, task.id) == ("t", "v", "j", NOON, "i")
    assert (task.meta, task.extra, task.dialect) == ({"a": "1"}, {"x": [1]}, Dialect.GO)


@pytest.mark.parametrize("name", ["type", "value", "id", "meta", "result", "created", "extra", "dialect", "other"])
def test_cannot_be_assigned(name: str) -> None:
    """No attribute of a task can be set."""
    with pytest.raises(AttributeError):
        setattr(Task("t"), name, "x")


def test_meta_cannot_be_changed() -> None:
    """The meta of a task is a read-only view."""
    task = Task("t", meta={"a": "1"})

    with pytest.raises(TypeError):
        task.meta["a"] = "2"  # type: ignore[index]


def test_keeps_no_hold_on_what_it_was_given() -> None:
    """Changing the dicts a task was made of does not change the task."""
    meta, extra = {"a": "1"}, {"x": [1]}
    task = Task("t", meta=meta, extra=extra)

    meta["a"] = "2"
    extra["x"].append(2)

    assert (task.meta, task.extra) == ({"a": "1"}, {"x": [1]})


def test_replace_leaves_the_original() -> None:
    """``replace`` gives a changed copy."""
    task = Task("t", "v", meta={"a": "1"})

    changed = task.replace(type="u", value="w", meta={"b": "2"}, result=Result.WARN, msg="m", started=NOON)

    assert (task.type, task.value, task.meta, task.result) == ("t", "v", {"a": "1"}, None)
    assert (changed.type, changed.value, changed.meta, changed.result) == ("u", "w", {"b": "2"}, Result.WARN)
    assert (changed.msg, changed.started, changed.id, changed.created) == ("m", NOON, task.id, task.created)


def test_replace_keeps_the_rest() -> None:
    """``replace`` keeps unknown keys and the dialect."""
    task = decode(b'{"type":"t","info":"v","x":[1]}').replace(value="w")

    assert encode(task) == b'{"type":"t","info":"w","x":[1]}'


@pytest.mark.parametrize("name", ["job", "created", "id", "meta", "result", "msg", "started", "completed"])
def test_replace_with_none_removes(name: str) -> None:
    """None removes a key."""
    full = Task("t", job="j", id="i", meta={"a": "1"}).replace(result="warn", msg="m", started=NOON, completed=NOON)

    removed = full.replace(**{name: None})

    assert len(decode(encode(removed))._data) == len(full._data) - 1
    assert not getattr(removed, name)


@pytest.mark.parametrize("name", ["task", "extra", "dialect", "valeu"])
def test_replace_knows_its_names(name: str) -> None:
    """A name that is no field of a task is named in the error."""
    with pytest.raises(TypeError, match=repr(name)):
        Task("t").replace(**{name: "x"})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Task(""), "type"),
        (lambda: Task(None), "type"),  # type: ignore[arg-type]
        (lambda: Task("t", 5), "value"),  # type: ignore[arg-type]
        (lambda: Task("t", b"v"), "value"),  # type: ignore[arg-type]
        (lambda: Task("t", "\ud800"), "value"),
        (lambda: Task("t", job=5), "job"),  # type: ignore[arg-type]
        (lambda: Task("t", id=5), "id"),  # type: ignore[arg-type]
        (lambda: Task("t", meta={"a": 1}), "meta 'a'"),  # type: ignore[dict-item]
        (lambda: Task("t", meta={"\ud800": "x"}), "meta key"),
        (lambda: Task("t", meta=["a"]), "meta"),  # type: ignore[arg-type]
        (lambda: Task("t", created="2017-01-01"), "created"),  # type: ignore[arg-type]
        (lambda: Task("t", created=datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))), "years"),
        (lambda: Task("t", extra={"x": object()}), "extra"),
        (lambda: Task("t", extra={"x": "\ud800"}), "extra"),
        (lambda: Task("t", extra={5: "x"}), "extra"),  # type: ignore[dict-item]
        (lambda: Task("t").replace(type=""), "type"),
        (lambda: Task("t").replace(type=None), "type"),
        (lambda: Task("t").replace(value=None), "value"),
        (lambda: Task("t").replace(result="done"), "done"),
        (lambda: Task("t").replace(created="2017-01-01"), "created"),
        (lambda: Task("t").replace(meta="a=1"), "meta"),
    ],
)
def test_wrong_values(make: Callable[[], Task], told: str) -> None:
    """A value of another kind is a ValueError that names it."""
    with pytest.raises(ValueError, match=told):
        make()


def test_extra_cannot_stand_in_for_a_field() -> None:
    """Extra keys with a meaning of their own, in either dialect, are left out."""
    task = Task("t", "v", extra={"type": "u", "task": "w", "result": "warn", "info": "w", "ended": "x", "z": 1})

    assert task.extra == {"z": 1}
    assert (task.type, task.value, task.result) == ("t", "v", None)


def test_enum_texts_are_texts() -> None:
    """Members of a StrEnum serve as type, value and meta, keys too."""
    task = Task(Key.WORKFLOW, Key.WORKFLOW, meta={Key.WORKFLOW: Key.WORKFLOW})

    assert decode(encode(task)) == task


def test_naive_time_is_utc() -> None:
    """A time without a zone is UTC, another zone's is converted."""
    east = timezone(timedelta(hours=2))

    assert Task("t", created=datetime(2017, 10, 28, 12)).created == NOON  # noqa: DTZ001
    assert Task("t", created=datetime(2017, 10, 28, 14, tzinfo=east)).created == NOON


def test_equality() -> None:
    """Tasks that say the same are equal and hash alike, in whatever dialect; others are not."""
    task = Task("t", "v", id="i", created=NOON)
    same = Task("t", "v", id="i", created=NOON, dialect=Dialect.GO)

    assert task == same
    assert hash(task) == hash(same)
    assert task != task.replace(msg="m")
    assert task != "t"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies(duplicate: Callable[[Any], Any]) -> None:
    """A copy equals its original."""
    task = Task("t", meta={"a": "1"}, extra={"x": [1]})

    assert duplicate(task) == task


def test_repr_tells_what_matters() -> None:
    """The repr has type, value, id and, once done, the result."""
    task = Task("t", "v", id="i")

    assert repr(task) == "Task('t', 'v', id='i')"
    assert repr(task.replace(result="warn")) == "Task('t', 'v', id='i', result='warn')"


def test_new_ids_are_unique() -> None:
    """No two new ids are the same."""
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_derived_id_is_stable() -> None:
    """The derived id of given parts never changes: children made by another release must get the same."""
    assert derive_id("parent", "rule", "2017-01-01T00") == "a6a7c287ef896e64ce7c29e1e2093087"


@pytest.mark.parametrize("other", [("ab", "c"), ("a", "b", "c"), ("abc",), ("a", "bc", ""), ("bc", "a"), ()])
def test_derived_ids_differ(other: tuple[str, ...]) -> None:
    """Where the parts are divided, and their order, make another id."""
    assert derive_id(*other) != derive_id("a", "bc")
