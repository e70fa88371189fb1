"""Texts with placeholders: ``s3://b/{yyyy}/{mm}/{dd}?hour={hh}&name={meta:name}``.

A placeholder is ``{token}``, ``{token:key}``, ``{job.NAME.field}`` or one of these with filters, ``{token|filter}``;
``{{`` and ``}}`` are braces.
Tokens are case-insensitive, so that ``{YYYY}`` is ``{yyyy}``. Nothing else is evaluated: a value put in for a
placeholder is never read as a template again.

In a template that has the shape of a URI (it contains ``://`` or ``?``) a value cannot break out of its place: after
the ``?`` it is percent-encoded for a query, before it for a path, where ``/`` stays. At the very beginning of a
template a value is put in as it is, for it may bring the whole URI. Parts of a parent's own URI keep the encoding they
came with. Filters change that: ``raw`` puts the value in as it is, ``quote`` encodes everything but letters, digits
and ``-._~``. ``default:TEXT`` stands in for a missing value.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Protocol
from urllib.parse import parse_qs, quote, unquote
from uuid import UUID

from bus.url import nearest
from task.errors import TaskError
from task.task import Task, derive_id
from task.uri import URI, escape

__all__ = [
    "COMMON",
    "FILE",
    "GROUP",
    "ITEM",
    "JOB",
    "JOB_FIELDS",
    "META",
    "PARENT",
    "REQUEST",
    "ROW",
    "RUN",
    "TIME",
    "Files",
    "MissingValueError",
    "Results",
    "Scope",
    "Template",
]

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
#: A token about another job of a workflow: its name, which keeps its case, and what of it.
_JOB = re.compile(r"(?i:job)\.([\w-]+)\.([A-Za-z]+)")
_EMPTY: Mapping[str, str] = MappingProxyType({})
_PATH_SAFE = "/:@!$&'()*+,;="


class MissingValueError(TaskError):
    """What a placeholder stands for is not there."""


class Results(Protocol):
    """What jobs of a workflow left behind."""

    def get(self, job: str, field: str, key: str) -> str | None:
        """A field of that job's done task, one of :data:`JOB_FIELDS`. None if it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """The files a task is made for. ``path``, ``mtime`` and ``match`` are those of the first by path."""

    path: str
    #: Bytes of all of them.
    size: int
    #: When the first was last changed, in the zone it is shown in.
    mtime: datetime
    #: Named groups of the rule's ``match``.
    match: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    #: Key of the group; empty for a file by itself.
    group: str = ""
    paths: Sequence[str] = ()


@dataclass(slots=True)
class Scope:
    """What placeholders are filled from. ``when`` is the moment of the time tokens, in the zone they are shown in."""

    id: str
    when: datetime | None = None
    meta: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    parent: Task | None = None
    item: str = ""
    index: int = 0
    row: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    run: str = ""
    workflow: str = ""
    results: Results | None = None
    files: Files | None = None


_Value = Callable[[Scope, str], str | None]


def _time(form: Callable[[datetime], str]) -> _Value:
    def value(scope: Scope, key: str) -> str | None:
        return None if scope.when is None else form(scope.when)

    return value


def _parent(read: Callable[[Task, str], str | None]) -> _Value:
    def value(scope: Scope, key: str) -> str | None:
        return None if scope.parent is None else read(scope.parent, key)

    return value


def _iso(when: datetime) -> str:
    text = when.isoformat(timespec="seconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _from_query(task: Task, key: str) -> str | None:
    values = parse_qs(URI.split(task.value).query, keep_blank_values=True).get(key)
    return ",".join(values) if values else None


def _origin(task: Task) -> str:
    uri = URI.split(task.value)
    return f"{uri.scheme}://{uri.host}{uri.path}" if uri.scheme else uri.path


def _hour_slug(when: datetime) -> str:
    return f"{when:%Y/%m/%d/%H}"


#: The moment: the nominal instant of a cron rule (with its offset), the ``cron`` meta of a parent.
TIME: Mapping[str, _Value] = {
    "yyyy": _time(lambda when: str(when.year)),
    "yy": _time(lambda when: f"{when.year % 100:02}"),
    "mm": _time(lambda when: f"{when.month:02}"),
    "dd": _time(lambda when: f"{when.day:02}"),
    "hh": _time(lambda when: f"{when.hour:02}"),
    "min": _time(lambda when: f"{when.minute:02}"),
    "ss": _time(lambda when: f"{when.second:02}"),
    "ts": _time(lambda when: f"{when:%Y%m%dT%H%M%S}"),
    "iso": _time(_iso),
    "slug": _time(_hour_slug),
    "hour_slug": _time(_hour_slug),
    "day_slug": _time(lambda when: f"{when:%Y/%m/%d}"),
    "month_slug": _time(lambda when: f"{when:%Y/%m}"),
}
#: ``uuid`` looks random but is derived from the task's id, so that making a task twice makes the same task.
COMMON: Mapping[str, _Value] = {
    "id": lambda scope, key: scope.id,
    "uuid": lambda scope, key: str(UUID(derive_id("uuid", scope.id))),
    "host": lambda scope, key: socket.gethostname(),
}
META: Mapping[str, _Value] = {"meta": lambda scope, key: scope.meta.get(key)}
#: The done task that a rule makes a child of.
PARENT: Mapping[str, _Value] = {
    "parent.type": _parent(lambda task, key: task.type),
    "parent.job": _parent(lambda task, key: task.job),
    "parent.id": _parent(lambda task, key: task.id),
    "parent.value": _parent(lambda task, key: task.value),
    "parent.result": _parent(lambda task, key: task.result and str(task.result)),
    "parent.msg": _parent(lambda task, key: task.msg),
    "parent.origin": _parent(lambda task, key: _origin(task)),
    "parent.path": _parent(lambda task, key: URI.split(task.value).path),
    "parent.filename": _parent(lambda task, key: URI.split(task.value).path.rpartition("/")[2]),
    "parent.query": _parent(_from_query),
}
#: One item of ``for_each``, and its number from 0.
ITEM: Mapping[str, _Value] = {
    "item": lambda scope, key: scope.item,
    "index": lambda scope, key: str(scope.index),
}
#: One column of the row that ``for_each`` read.
ROW: Mapping[str, _Value] = {"row": lambda scope, key: scope.row.get(key)}
#: The task that started a run of a workflow.
REQUEST: Mapping[str, _Value] = {name.replace("parent.", "request."): value for name, value in PARENT.items()}
RUN: Mapping[str, _Value] = {
    "run": lambda scope, key: scope.run,
    "workflow": lambda scope, key: scope.workflow,
}


def _files(read: Callable[[Files, str], str | None]) -> _Value:
    def value(scope: Scope, key: str) -> str | None:
        return None if scope.files is None else read(scope.files, key)

    return value


def _mtime(token: _Value) -> _Value:
    return _files(lambda files, key: token(Scope("", files.mtime), key))


#: A file that arrived. ``{match:NAME}`` is a named group of the rule's regular expression.
FILE: Mapping[str, _Value] = {
    "file": _files(lambda files, key: files.path),
    "file.name": _files(lambda files, key: files.path.rpartition("/")[2]),
    "file.stem": _files(lambda files, key: PurePosixPath(files.path).stem),
    "file.dir": _files(lambda files, key: files.path.rpartition("/")[0]),
    "file.size": _files(lambda files, key: str(files.size)),
    "file.mtime": _mtime(TIME["iso"]),
    **{f"file.mtime.{name}": _mtime(token) for name, token in TIME.items()},
    "match": _files(lambda files, key: files.match.get(key)),
}
#: Files that arrived together.
GROUP: Mapping[str, _Value] = {
    "group": _files(lambda files, key: files.group),
    "count": _files(lambda files, key: str(len(files.paths))),
    "files": _files(lambda files, key: ",".join(files.paths)),
}
#: ``{job.NAME.FIELD}``: what another job of the same run left behind. Its FIELDs: those with a key, and the others.
JOB = "job"
JOB_FIELDS: Mapping[str, bool] = {
    "meta": True,
    "query": True,
    "value": False,
    "msg": False,
    "result": False,
    "id": False,
    "origin": False,
    "path": False,
    "filename": False,
    "count": False,
    "completed": False,
    "failed": False,
}
_ALL = {**TIME, **COMMON, **META, **PARENT, **ITEM, **ROW, **REQUEST, **RUN, **FILE, **GROUP}
#: Tokens that say what of with a key.
_KEYED = ("meta", "parent.query", "request.query", "row", "match")
#: Tokens, and fields of jobs, whose value is percent-encoded already.
_ENCODED = (
    *("parent.origin", "parent.path", "parent.filename"),
    *("request.origin", "request.path", "request.filename"),
    *("origin", "path", "filename"),
)
#: Tokens that are a whole path, perhaps with a scheme: at the beginning of a URI they are encoded too.
_LOCATIONS = ("file", "file.dir", "group")
_FILTERS = ("raw", "quote", "default")


@dataclass(frozen=True, slots=True)
class _Placeholder:
    text: str
    value: _Value
    key: str
    encode: Callable[[str], str] | None
    default: str | None

    def fill(self, scope: Scope) -> str:
        value = self.value(scope, self.key)
        if value is None:
            if self.default is None:
                raise MissingValueError(f"there is no value for {self.text}")
            value = self.default
        return self.encode(value) if self.encode else value


class Template:
    """A parsed template. One that is ``value`` of a task has the shape of a URI also if it begins with a path.

    Raises:
        ValueError: for a lone brace, an unknown token or filter (naming the nearest), or a token not in ``tokens``.
    """

    __slots__ = ("_parts", "jobs", "meta_keys", "text", "tokens")

    def __init__(self, text: str, tokens: Collection[str], *, value: bool = False) -> None:
        self.text = text
        #: Names of the tokens it uses.
        self.tokens: set[str] = set()
        #: Keys of the ``{meta:key}`` it uses, without those that have a default.
        self.meta_keys: set[str] = set()
        #: Names of the jobs whose results it uses, each with the fields.
        self.jobs: dict[str, set[str]] = {}
        self._parts: list[str | _Placeholder] = []
        uri = _is_uri(text) or (value and _begins_with_path(text))
        before = ""
        position = 0
        for match in _PART.finditer(text):
            before += self._literal(text[position : match.start()])
            position = match.end()
            if match[0] in ("{{", "}}"):
                before += self._literal(match[0][0])
                continue
            if match[1] is None:
                at = match.start() + 1
                raise ValueError(
                    f"a single {match[0]!r} at character {at}; write {match[0] * 2!r} for the brace itself"
                )
            encode = _encoding(before) if uri and (match.start() > 0 or _begins_with_path(text)) else None
            self._parts.append(self._placeholder(match[0], match[1], tokens, encode))
        self._literal(text[position:])

    @property
    def constant(self) -> bool:
        """Whether it has no placeholders."""
        return all(isinstance(part, str) for part in self._parts)

    def render(self, scope: Scope) -> str:
        """The text with its placeholders filled.

        Raises:
            MissingValueError: naming the placeholder that has no value.
        """
        return "".join([part if isinstance(part, str) else part.fill(scope) for part in self._parts])

    def _literal(self, text: str) -> str:
        if text:
            self._parts.append(text)
        return text

    def _placeholder(
        self, text: str, inner: str, tokens: Collection[str], encode: Callable[[str], str] | None
    ) -> _Placeholder:
        token, *filters = inner.split("|")
        name, colon, key = token.strip().partition(":")
        job = _JOB.fullmatch(name) if JOB in tokens else None
        if job is not None:
            return self._filtered(text, filters, *self._of_job(text, job[1], job[2].lower(), key), encode)
        name = name.lower()
        if name not in _ALL:
            raise ValueError(f"unknown token {text}{nearest(name, sorted(tokens))}")
        if name not in tokens:
            raise ValueError(f"{text} has no meaning here{' without for_each' if name in (*ITEM, *ROW) else ''}")
        if bool(key) != (name in _KEYED) or (colon and not key):
            raise ValueError(f"{text}: write {{{name}:KEY}}" if name in _KEYED else f"{text}: write {{{name}}}")
        self.tokens.add(name)
        placeholder = self._filtered(text, filters, name, key, _ALL[name], encode)
        if name == "meta" and placeholder.default is None:
            self.meta_keys.add(key)
        return placeholder

    def _of_job(self, text: str, job: str, field: str, key: str) -> tuple[str, str, _Value]:
        if field not in JOB_FIELDS:
            raise ValueError(f"{text}: a job has no {field!r}{nearest(field, sorted(JOB_FIELDS))}")
        if bool(key) != JOB_FIELDS[field]:
            raise ValueError(f"{text}: write {{job.{job}.{field}{':KEY' if JOB_FIELDS[field] else ''}}}")
        self.jobs.setdefault(job, set()).add(field)
        return field, key, lambda scope, key: None if scope.results is None else scope.results.get(job, field, key)

    def _filtered(
        self,
        text: str,
        filters: list[str],
        name: str,
        key: str,
        value: _Value,
        encode: Callable[[str], str] | None,
    ) -> _Placeholder:
        default = None
        for given in filters:
            word, _, argument = given.partition(":")
            if word == "default":
                default = argument
            elif word == "raw":
                encode = None
            elif word == "quote":
                encode = _quote_all
            else:
                raise ValueError(f"{text}: unknown filter {word!r}{nearest(word, list(_FILTERS))}")
        if name in _ENCODED:
            encode = _again(encode)
        return _Placeholder(text, value, key, encode, default)


def _is_uri(text: str) -> bool:
    literal = _PART.sub("", text)
    return "://" in literal or "?" in literal


def _begins_with_path(text: str) -> bool:
    match = _PART.match(text)
    return match is not None and re.split(r"[|:]", match[1] or "")[0].strip().lower() in _LOCATIONS


def _encoding(before: str) -> Callable[[str], str]:
    """How a value is encoded that has the literal text ``before`` it."""
    return _quote_query if "?" in before or "#" in before else _quote_path


def _again(encode: Callable[[str], str] | None) -> Callable[[str], str] | None:
    """``encode`` for a value that is encoded for a path."""
    return None if encode is None or encode is _quote_path else lambda value: encode(unquote(value))


def _quote_all(value: str) -> str:
    return value if _needs_nothing(value) else quote(value, safe="")


def _quote_query(value: str) -> str:
    return value if _needs_nothing(value) else escape(value, safe=":")


def _quote_path(value: str) -> str:
    return value if _needs_nothing(value) else quote(value, safe=_PATH_SAFE)


def _needs_nothing(value: str) -> bool:
    # To find this out takes a tenth of the time of encoding it, and most values are numbers.
    return value.isalnum() and value.isascii()
