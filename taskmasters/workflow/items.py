"""``for_each``: what one job of a workflow makes a task each of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from bus.units import format_duration, parse_duration
from bus.url import nearest
from taskmasters.batch.moments import Step, moments
from taskmasters.batch.rows import read_rows
from taskmasters.on_done.items import parse_items
from taskmasters.rules import no_word
from taskmasters.templates import Scope, Template
from taskmasters.zone import Zone

__all__ = ["MAX_ITEMS", "Item", "Source", "read_item", "read_source", "write_item"]

#: The most tasks one job of one run makes.
MAX_ITEMS = 100_000
_NO_ROW: Mapping[str, str] = MappingProxyType({})
_ENDINGS = (".csv", ".jsonl", ".ndjson", ".json")
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
    """The rows of a file."""

    path: Template
    folder: Path = field(compare=False)

    def items(self, scope: Scope) -> Sequence[Item]:
        rows = islice(read_rows(str(self.folder / self.path.render(scope))), MAX_ITEMS + 1)
        return _limited([Item(orjson.dumps(row).decode(), row) for row in rows])

    @property
    def templates(self) -> Sequence[Template]:
        return (self.path,)

    def __str__(self) -> str:
        return f"row of {self.path.text}"


@dataclass(frozen=True, slots=True)
class _Times(Source):
    """The moments from the full hour of the run to ``length`` seconds from it, both included."""

    length: float
    by: Step
    zone: Zone

    def items(self, scope: Scope) -> Sequence[Item]:
        if scope.when is None:
            raise ValueError("the run has no moment to count times from")
        start = int(scope.when.replace(minute=0, second=0, microsecond=0).timestamp())
        try:
            found = list(moments(start, start + int(self.length), self.by, self.zone))
        except (OverflowError, OSError, ValueError):
            raise ValueError("the times leave the calendar") from None
        return [Item(datetime.fromtimestamp(moment, self.zone.info).isoformat(), when=moment) for moment in found]

    def __str__(self) -> str:
        return f"{self.by} from the hour of the run to {format_duration(round(self.length))} from it"


def read_source(given: object, tokens: Collection[str], folder: Path, zone: Zone) -> Source:
    """``["a", "b"]``, ``"1..5"``, ``"{meta:files}"``, a list of tables, ``{file = …}`` or ``{times = …, by = …}``.

    Raises:
        ValueError: saying what is wrong.
    """
    if isinstance(given, dict):
        return _read_table(given, tokens, folder, zone)
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


def _read_table(given: Mapping[str, Any], tokens: Collection[str], folder: Path, zone: Zone) -> Source:
    for key in given:
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}{nearest(key, list(_KEYS))}")
    if ("file" in given) == ("times" in given):
        raise ValueError('write either { file = "rows.csv" } or { times = "-24h", by = "hour" }')
    if "file" in given:
        if "by" in given or not isinstance(given["file"], str):
            raise ValueError('write { file = "rows.csv" }')
        path = Template(given["file"], tokens)
        if Path(path.text).suffix.lower() not in _ENDINGS:
            raise ValueError(f"{path.text!r} must end in {', '.join(_ENDINGS)}")
        return _File(path, folder)
    by = given.get("by", "day")
    if by not in list(Step):
        raise ValueError(f"by: {no_word(str(by), list(Step))}")
    if not isinstance(given["times"], str):
        raise ValueError('times is a duration, as in { times = "-24h", by = "hour" }')
    length = parse_duration(given["times"])
    if abs(length) / 3600 > MAX_ITEMS:
        raise ValueError(f"times reaches further than {MAX_ITEMS} hours")
    return _Times(length, Step(by), zone)


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
