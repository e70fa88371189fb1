"""Typed parameters from a task value, and a task value from typed parameters.

    @dataclass(frozen=True)
    class Resize:
        origin: str                     # s3://photos/2017/cat.jpg
        width: int                      # ?width=640
        dry_run: bool = False           # &dry-run
        formats: list[str] = param(default_factory=lambda: ["jpg"], key="format")

    read_params("s3://photos/2017/cat.jpg?width=640&dry-run", Resize)

A field named as one of ``task.uri.PARTS`` (``origin``, ``path`` …) is read from that part of the value, every other one
from the query. In query keys ``-`` and ``_`` are alike. :mod:`task.kinds` has the types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, TypeVar, get_type_hints
from weakref import WeakKeyDictionary

from bus.url import nearest
from task.errors import ParamsError
from task.kinds import Kind, Scalar, Seconds, kind_of
from task.uri import PARTS, URI, escape

__all__ = ["Plan", "Seconds", "make_plan", "param", "read_params", "write_params"]

T = TypeVar("T")
_KEY = "task.params.key"


def param(*, default: Any = MISSING, default_factory: Any = MISSING, key: str | None = None) -> Any:
    """A field of a parameters class with another query key than its name; required unless it has a default.

    With ``key`` a field is read from the query even if its name is that of a part such as ``path``.
    """
    if default_factory is not MISSING:
        return dataclasses.field(default_factory=default_factory, metadata={_KEY: key})
    return dataclasses.field(default=default, metadata={_KEY: key})


def read_params(value: str, into: type[T], *, strict: bool = False) -> T:
    """Read a task value into the dataclass ``into``.

    Absent fields have their default, or None where their type allows it. Query keys that ``into`` does not have are
    ignored unless ``strict``. A ValueError from its ``__post_init__`` counts as a value that does not fit.

    Raises:
        ParamsError: naming every field that is missing or wrong, what was given and what is accepted.
        TypeError: if ``into`` is no dataclass, or has a field of a type that cannot stand in a task value.
    """
    values = _plan(into).read(value, strict=strict)
    try:
        return into(**values)
    except ValueError as error:
        raise ParamsError(f"the task value does not fit {into.__name__}: {error}") from error


def write_params(params: object) -> str:
    """The task value that :func:`read_params` reads as ``params``: the query sorted, without what equals its default.

    Secrets are written in clear.

    Raises:
        ValueError: naming a field whose value no task value can express.
        TypeError: as for :func:`read_params`.
    """
    plan = _plan(type(params))
    return plan.write({parameter.name: getattr(params, parameter.name) for parameter in plan.parameters})


@dataclasses.dataclass(frozen=True, slots=True)
class _Parameter:
    """One field of a class or argument of a function. ``part`` is the part of the value it stands for, if any."""

    name: str
    label: str
    part: str | None
    kind: Kind
    optional: bool
    default: Callable[[], Any] | None

    def absent(self) -> Any:
        """What it is when the value does not say; MISSING if it must say."""
        if self.default is not None:
            return self.default()
        return None if self.optional else MISSING

    def read(self, uri: URI, given: Mapping[str, Sequence[str]]) -> Any:
        """Its value; MISSING if the default stands. Raises ValueError saying what is wrong."""
        if isinstance(self.kind, Scalar) and self.part is not None:
            text = uri.part(self.part)
            if text:
                return self.kind.parse_plain(text)
        else:
            texts = given.get(_folded(self.label))
            if texts is not None:
                nothing = self.optional and not self.kind.takes_empty and texts[-1] == "" and len(texts) == 1
                return None if nothing else self.kind.read(texts)
        if self.default is None and not self.optional:
            raise ValueError(f"missing, it must be {self.kind.accepts}")
        return MISSING if self.default is not None else None


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How the parameters of a class or function are read. ``owner`` names it in errors."""

    owner: str
    parameters: tuple[_Parameter, ...]

    def read(self, value: str, *, strict: bool = False) -> dict[str, Any]:
        """The parameters that the task value gives, and None for optional ones without a default.

        Raises:
            ParamsError: naming every one that is missing or wrong.
        """
        uri = URI.split(value)
        given = _given(uri)
        values: dict[str, Any] = {}
        problems: list[str] = []
        for parameter in self.parameters:
            try:
                found = parameter.read(uri, given)
            except ValueError as error:
                problems.append(f"{parameter.label}: {error}")
            else:
                if found is not MISSING:
                    values[parameter.name] = found
        if strict:
            known = {_folded(parameter.label): parameter.label for parameter in self.parameters if not parameter.part}
            for key in [key for key in given if key not in known]:
                problems.append(f"{key}: there is no such parameter{nearest(key, list(known.values()))}")
        if problems:
            raise ParamsError(f"the task value does not fit {self.owner}: {'; '.join(problems)}")
        return values

    def write(self, values: Mapping[str, Any]) -> str:
        """The task value that gives ``values``.

        Raises:
            ValueError: naming one that no task value can express.
        """
        parts: dict[str, str] = {}
        query: dict[str, str] = {}
        for parameter in self.parameters:
            value = values[parameter.name]
            try:
                if isinstance(parameter.kind, Scalar) and parameter.part is not None:
                    if value is not None:
                        parts[parameter.part] = parameter.kind.format_plain(value)
                elif value != parameter.absent() and not (value is None and parameter.kind.takes_empty):
                    text = "" if value is None else parameter.kind.write(value)
                    query[parameter.label] = f"{escape(parameter.label)}={text}"
            except ValueError as error:
                raise ValueError(f"{parameter.name} cannot be written: {error}") from None
        try:
            written = str(URI.build(parts, "&".join(query[key] for key in sorted(query))))
            written.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{', '.join(parts)} cannot be written: there is a lone surrogate in it") from None
        self._check(written, values)
        return written

    def _check(self, written: str, values: Mapping[str, Any]) -> None:
        uri = URI.split(written)
        given = _given(uri)
        for parameter in self.parameters:
            try:
                found = parameter.read(uri, given)
            except ValueError as error:
                raise ValueError(f"{parameter.name} cannot be written: {error}") from None
            found = parameter.absent() if found is MISSING else found
            value = values[parameter.name]
            if found != value and (
                None in (found, value) or parameter.kind.write(found) != parameter.kind.write(value)
            ):
                raise ValueError(f"{parameter.name} cannot be written: {value!r} would be read as {found!r}")


def make_plan(owner: str, fields: Sequence[tuple[str, str | None, Any, Callable[[], Any] | None]]) -> Plan:
    """The plan for fields of (name, query key if not by name, annotation, maker of the default if any).

    Raises:
        TypeError: naming the field that cannot be read from a task value.
    """
    parameters: list[_Parameter] = []
    seen: dict[str, str] = {}
    for name, key, hint, default in fields:
        part = name if key is None and name in PARTS else None
        label = name if part else key or name.replace("_", "-")
        try:
            kind, optional = kind_of(hint)
        except TypeError as error:
            raise TypeError(f"{owner}.{name}: {error}") from None
        if part and not isinstance(kind, Scalar):
            raise TypeError(f"{owner}.{name}: the {part} of a task value is one value, not {kind.accepts}")
        if part == "password" and not (isinstance(kind, Scalar) and kind.hidden):
            raise TypeError(f"{owner}.{name}: annotate a password with bus.Secret, so that it is never shown")
        if not part and seen.setdefault(_folded(label), name) != name:
            raise TypeError(f"{owner}.{name}: {seen[_folded(label)]} is read from the query key {label!r} already")
        parameters.append(_Parameter(name, label, part, kind, optional, default))
    return Plan(owner, tuple(parameters))


_plans: WeakKeyDictionary[type, Plan] = WeakKeyDictionary()


def _plan(cls: type) -> Plan:
    plan = _plans.get(cls)
    if plan is None:
        plan = _plans[cls] = _plan_of_class(cls)
    return plan


def _plan_of_class(cls: type) -> Plan:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{getattr(cls, '__name__', cls)} is not a dataclass; parameters are read into one")
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"an annotation of {cls.__name__} cannot be resolved: {error}; define it in the module"
        ) from None
    fields = []
    for field in dataclasses.fields(cls):
        if field.init:
            fields.append((field.name, field.metadata.get(_KEY), hints[field.name], _default(field)))
    return make_plan(cls.__name__, fields)


def _default(field: dataclasses.Field[Any]) -> Callable[[], Any] | None:
    if field.default_factory is not MISSING:
        return field.default_factory
    if field.default is not MISSING:
        return lambda: field.default
    return None


def _given(uri: URI) -> dict[str, list[str]]:
    """The query's texts by folded key."""
    given: dict[str, list[str]] = {}
    for key, text in uri.parameters():
        given.setdefault(_folded(key), []).append(text)
    return given


def _folded(key: str) -> str:
    return key.replace("_", "-")
