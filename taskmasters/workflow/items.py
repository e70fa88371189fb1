"""``for_each``: what one job of a workflow makes a task each of."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from calendar import monthrange
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from bus.units import format_duration, parse_duration
from bus.url import nearest
from taskmasters.on_done.items import parse_items
from taskmasters.templates import Scope, Template

__all__ = ["MAX_ITEMS", "Item", "Source", "read_item", "read_source", "write_item"]

#: The most tasks one job of one run makes.
MAX_ITEMS = 100_000
_NO_ROW: Mapping[str, str] = MappingProxyType({})
_UNITS = ("hour", "day", "week", "month")
_LINES = (".jsonl", ".ndjson", ".json")
_TABLES = {".csv": ",", ".tsv": "\t"}
_KEYS = ("file", "times", "by")


class Item(NamedTuple):
    """One item: its text, its columns if it is a row, and its moment (seconds since the epoch) if it is a time."""

    text: str = ""
    row: Mapping[str, str] = _NO_ROW
    when: float | None = None


#: What a job without ``for_each`` makes its task for.
NONE = Item()


class Source(ABC):
    """Where items come from."""

    @abstractmethod
    def items(self, scope: Scope) -> Sequence[Item]:
        """The items for one run.

        Raises:
            MissingValueError: from a template.
            ValueError: if they cannot be read, or are more than :data:`MAX_ITEMS`.
        """

    @property
    def templates(self) -> Sequence[Template]:
        """The templates it fills."""
        return ()

    @abstractmethod
    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Fixed(Source):
    given: Sequence[Item]
    text: str

    def items(self, scope: Scope) -> Sequence[Item]:
        return self.given

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class _Listed(Source):
    """A text that is a list with commas."""

    template: Template

    def items(self, scope: Scope) -> Sequence[Item]:
        pieces = [piece.strip() for piece in self.template.render(scope).split(",")]
        return _limited([Item(piece) for piece in pieces if piece])

    @property
    def templates(self) -> Sequence[Template]:
        return (self.template,)

    def __str__(self) -> str:
        return self.template.text


@dataclass(frozen=True, slots=True)
class _File(Source):
    """The rows of a CSV file with a head, or of a file of JSON objects, one a line."""

    path: Template
    folder: Path = field(compare=False)

    def items(self, scope: Scope) -> Sequence[Item]:
        path = self.folder / self.path.render(scope)
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = _table(file, str(path)) if path.suffix.lower() in _TABLES else _objects(file, str(path))
                found = []
                for row in rows:
                    found.append(Item(orjson.dumps(row).decode(), row))
                    _limited(found)
                return found
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8 text") from None

    @property
    def templates(self) -> Sequence[Template]:
        return (self.path,)

    def __str__(self) -> str:
        return f"row of {self.path.text}"


@dataclass(frozen=True, slots=True)
class _Times(Source):
    """Every hour, day, week or month between the moment of the run and ``length`` seconds from it, both included."""

    length: float
    by: str

    def items(self, scope: Scope) -> Sequence[Item]:
        if scope.when is None:
            raise ValueError("the run has no moment to count times from")
        start = scope.when.replace(minute=0, second=0, microsecond=0)
        end = start.astimezone(UTC) + timedelta(seconds=self.length)
        sign = 1 if self.length >= 0 else -1
        found: list[Item] = []
        try:
            while (moment := self._step(start, sign * len(found))).astimezone(UTC) * sign <= end * sign:  # type: ignore[operator]
                found.append(Item(moment.isoformat(), when=moment.timestamp()))
        except OverflowError:
            raise ValueError("the times leave the calendar") from None
        return found

    def _step(self, start: datetime, count: int) -> datetime:
        if self.by == "hour":
            return (start.astimezone(UTC) + timedelta(hours=count)).astimezone(start.tzinfo)
        if self.by != "month":
            return start + timedelta(days=count * (7 if self.by == "week" else 1))
        months = start.year * 12 + start.month - 1 + count
        year, month = divmod(months, 12)
        return start.replace(year=year, month=month + 1, day=min(start.day, monthrange(year, month + 1)[1]))

    def __str__(self) -> str:
        return f"{self.by} from the moment of the run to {format_duration(round(self.length))} from it"


def read_source(given: object, tokens: Collection[str], folder: Path) -> Source:
    """``["a", "b"]``, ``"1..5"``, ``"{meta:files}"``, a list of tables, ``{file = …}`` or ``{times = …, by = …}``.

    Raises:
        ValueError: saying what is wrong.
    """
    if isinstance(given, dict):
        return _read_table(given, tokens, folder)
    if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        rows = [_row(item, f"item {number}") for number, item in enumerate(given)]
        return _Fixed(_limited([Item(orjson.dumps(row).decode(), row) for row in rows]), f"{len(rows)} rows")
    if isinstance(given, str) and "{" in given:
        template = Template(given, tokens)
        if not template.constant:
            return _Listed(template)
    try:
        fixed = parse_items(given)
    except ValueError as error:
        if not str(error).startswith("must be"):
            raise
        raise ValueError(
            'must be a list of texts or of tables, a range like "1..5", a template like "{meta:files}", '
            '{ file = "rows.csv" } or { times = "-24h", by = "hour" }'
        ) from None
    return _Fixed([Item(text) for text in fixed.fixed], fixed.text)


def _read_table(given: Mapping[str, Any], tokens: Collection[str], folder: Path) -> Source:
    for key in given:
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}{nearest(key, list(_KEYS))}")
    if ("file" in given) == ("times" in given):
        raise ValueError('write either { file = "rows.csv" } or { times = "-24h", by = "hour" }')
    if "file" in given:
        if "by" in given or not isinstance(given["file"], str):
            raise ValueError('write { file = "rows.csv" }')
        path = Template(given["file"], tokens)
        suffix = Path(path.text).suffix.lower()
        if suffix not in (*_LINES, *_TABLES):
            raise ValueError(f"{path.text!r} must end in {', '.join((*_LINES, *_TABLES))}")
        return _File(path, folder)
    by = given.get("by", "day")
    if by not in _UNITS:
        raise ValueError(f"by is {by!r}, which is none of {', '.join(_UNITS)}")
    if not isinstance(given["times"], str):
        raise ValueError('times is a duration, as in { times = "-24h", by = "hour" }')
    length = parse_duration(given["times"])
    if abs(length) / 3600 > MAX_ITEMS:
        raise ValueError(f"times reaches further than {MAX_ITEMS} hours")
    return _Times(length, by)


def _table(lines: Any, path: str) -> Iterator[Mapping[str, str]]:
    reader = csv.DictReader(lines, delimiter=_TABLES[Path(path).suffix.lower()], strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"{path}:{reader.line_num}: has not as many columns as the head of the file")
            yield row
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _objects(lines: Any, path: str) -> Iterator[Mapping[str, str]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                data = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not JSON: {error}") from None
            if not isinstance(data, dict):
                raise ValueError(f"{path}:{number}: not a JSON object")
            yield _row(data, f"{path}:{number}")


def _row(data: Mapping[str, Any], where: str) -> Mapping[str, str]:
    """Texts stay, null is a missing column, everything else is its JSON."""
    try:
        return {
            key: value if isinstance(value, str) else orjson.dumps(value).decode()
            for key, value in data.items()
            if value is not None
        }
    except orjson.JSONEncodeError as error:
        raise ValueError(f"{where}: {error}") from None


def _limited(items: list[Item]) -> list[Item]:
    if len(items) > MAX_ITEMS:
        raise ValueError(f"more than {MAX_ITEMS} items")
    return items


def write_item(item: Item) -> bytes:
    """The item as JSON, for the state."""
    if item == NONE:
        return b""
    return orjson.dumps({"text": item.text, "row": dict(item.row), "when": item.when})


def read_item(body: bytes) -> Item:
    """What :func:`write_item` wrote."""
    if not body:
        return NONE
    data = orjson.loads(body)
    return Item(data["text"], data["row"], data["when"])
