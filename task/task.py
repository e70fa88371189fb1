"""The task object: an immutable view of one small JSON object."""

from __future__ import annotations

import builtins
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Self, TypeVar

import orjson

from task.outcome import Result
from task.times import format_time, parse_time

__all__ = ["Dialect", "Task", "derive_id", "new_id"]

Params = TypeVar("Params")

#: JSON keys with a meaning. Every other key travels along untouched.
_KNOWN = ("type", "task", "job", "created", "id", "meta", "result", "msg", "started", "completed")
#: What the Go toolkit calls some of them; as an extra key they would be read as those.
_RESERVED = (*_KNOWN, "info", "ended")
#: Keyword of ``Task(...)`` and ``replace`` → JSON key, where they differ.
_KEYS = {"value": "task"}
_bare = object.__new__
_NO_META: Mapping[str, str] = MappingProxyType({})


class Dialect(Enum):
    """How a task is written on the wire."""

    TASKBUS = "taskbus"
    #: The Go toolkit's keys: ``info``, ``ended``, ``meta`` as a query string.
    GO = "go"


def new_id() -> str:
    """A new unique task id."""
    return os.urandom(16).hex()


def derive_id(*parts: str) -> str:
    """The id that these parts always give: a child made twice from the same parent and rule is the same child."""
    digest = blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()


class Task:
    """One unit of work, as it travels.

    ``type`` says which worker does it, ``value`` (key ``task`` on the wire) what to do: a small text, often shaped
    like a URI. ``id`` is unique and kept by retries. ``job`` names a job of that type, ``meta`` holds texts that
    travel along. A done task also has ``result``, ``msg``, ``started`` and ``completed``.

    Raises:
        ValueError: for an empty type or a value that is not of the stated kind.
    """

    __slots__ = ("_data", "_dialect")

    def __init__(
        self,
        type: str,
        value: str = "",
        *,
        job: str | None = None,
        created: datetime | None = None,
        id: str | None = None,
        meta: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        dialect: Dialect = Dialect.TASKBUS,
    ) -> None:
        data: dict[str, Any] = {"type": _text("type", type), "task": _text("value", value)}
        if not type:
            raise ValueError("a task needs a type")
        if job is not None:
            data["job"] = _text("job", job)
        data["created"] = _moment("created", datetime.now(UTC) if created is None else created)
        data["id"] = new_id() if id is None else _text("id", id)
        if meta:
            data["meta"] = _texts(meta)
        if extra:
            data.update(_json({key: value for key, value in extra.items() if key not in _RESERVED}))
        self._data = data
        self._dialect = dialect

    @classmethod
    def _of(cls, data: dict[str, Any], dialect: Dialect) -> Self:
        """Wrap checked data, without copying it. For the codec."""
        task = _bare(cls)
        task._data = data
        task._dialect = dialect
        return task

    @property
    def type(self) -> str:
        """The task type, by default also the topic it travels on."""
        return self._data["type"]  # type: ignore[no-any-return]

    @property
    def value(self) -> str:
        """The task value (key ``task``; ``info`` in the Go dialect)."""
        return self._data["task"]  # type: ignore[no-any-return]

    @property
    def job(self) -> str | None:
        """Name of the job of that type."""
        return self._data.get("job")

    @property
    def id(self) -> str | None:
        """Unique id. Only a task read from elsewhere can be without one; the receiver then derives one."""
        return self._data.get("id")

    @property
    def meta(self) -> Mapping[str, str]:
        """Texts that travel along: workflow, parent, attempt, trace context …"""
        meta = self._data.get("meta")
        return MappingProxyType(meta) if meta else _NO_META

    @property
    def result(self) -> Result | None:
        """How it ended; None while it is not done."""
        result = self._data.get("result")
        return Result(result) if result else None

    @property
    def msg(self) -> str:
        """The outcome in words."""
        return self._data.get("msg") or ""

    @property
    def created(self) -> datetime | None:
        """When it was made, UTC."""
        return self._time("created")

    @property
    def started(self) -> datetime | None:
        """When a worker began it, UTC."""
        return self._time("started")

    @property
    def completed(self) -> datetime | None:
        """When the worker ended it, UTC."""
        return self._time("completed")

    @property
    def extra(self) -> Mapping[str, Any]:
        """The keys of its JSON object this toolkit gives no meaning to."""
        return {key: value for key, value in self._data.items() if key not in _KNOWN}

    @property
    def dialect(self) -> Dialect:
        """How it was, and will be, written on the wire."""
        return self._dialect

    def params(self, into: builtins.type[Params], *, strict: bool = False) -> Params:
        """The value read into the dataclass ``into``: origin, path, query. See :mod:`task.params`.

        Raises:
            ParamsError: naming every field that is missing or cannot be read; if ``strict``, also unknown query keys.
        """
        from task.params import read_params

        return read_params(self.value, into, strict=strict)

    def replace(self, **changes: Any) -> Self:
        """A copy with some of ``type value job created id meta result msg started completed`` changed.

        ``None`` removes a key.

        Raises:
            TypeError: for a name that is none of these.
            ValueError: for a value that is not of the stated kind.
        """
        data = dict(self._data)
        for name, value in changes.items():
            key = _KEYS.get(name, name)
            if key not in _KNOWN or name == "task":
                raise TypeError(f"a task has no {name!r}")
            if value is None and key not in ("type", "task"):
                data.pop(key, None)
            elif key in ("created", "started", "completed"):
                data[key] = _moment(name, value)
            elif key == "meta":
                data[key] = _texts(value)
            elif key == "result":
                data[key] = str(Result(value))
            else:
                data[key] = _text(name, value)
        if not data["type"]:
            raise ValueError("a task needs a type")
        return self._of(data, self._dialect)

    def in_dialect(self, dialect: Dialect) -> Self:
        """The same task, written in ``dialect`` from now on."""
        return self._of(self._data, dialect)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and other._data == self._data

    def __hash__(self) -> int:
        return hash((self.type, self.value, self.id))

    def __repr__(self) -> str:
        done = f", result={str(self.result)!r}" if self.result else ""
        return f"Task({self.type!r}, {self.value!r}, id={self.id!r}{done})"

    def _time(self, key: str) -> datetime | None:
        text = self._data.get(key)
        return parse_time(text) if text else None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which cannot be written as UTF-8") from None
    # A subclass such as a StrEnum member is no key of JSON.
    return value if type(value) is str else str.__str__(value)


def _texts(meta: object) -> dict[str, str]:
    if not isinstance(meta, Mapping):
        raise ValueError(f"meta must be a mapping of texts, not {type(meta).__name__}")
    return {_text("meta key", key): _text(f"meta {key!r}", value) for key, value in meta.items()}


def _moment(name: str, value: object) -> str:
    if not isinstance(value, datetime):
        raise ValueError(f"{name} must be a datetime, not {type(value).__name__}")
    return format_time(value)


def _json(extra: dict[str, Any]) -> dict[str, Any]:
    """A copy that is sure to be written; what nests deeper than the codec writes is refused, like the rest."""
    try:
        return orjson.loads(orjson.dumps(extra))  # type: ignore[no-any-return]
    except orjson.JSONEncodeError as error:
        raise ValueError(f"extra cannot be written as JSON: {error}") from None
