"""How values of each type stand in the query of a task value.

Lists are separated by ``,``, the entries of a map by ``|`` and a key from its value by ``:``. A text that holds a
separator literally is cut there, and an encoded one (``%2C``) is then part of an element; a text with encoded ones only
is cut at those, since many writers encode them all. One separator at the end ends the last element, so that
``a=x%2Cy,`` is one element, ``a=,`` one empty element and ``a=`` none.
"""

from __future__ import annotations

import enum
import math
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from bus import Secret
from bus.units import format_duration, parse_duration
from task.times import parse_time
from task.uri import escape, unescape_query

__all__ = ["Kind", "Scalar", "Seconds", "kind_of"]

#: A duration as a number of seconds: annotate a ``float`` with it to have ``250ms``, ``90`` or ``1h30m`` read.
Seconds = Annotated[float, "seconds"]

_INTEGER = re.compile(r"[+-]?[0-9]+")
#: How much of a wrong text is shown in an error.
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. ``parse`` and ``format`` work on plain texts; a ``hidden`` one is never shown.

    ``accepts`` says in errors what may be given. ``takes_empty`` says whether an empty text is a value; if not, it
    stands for None where None is allowed.
    """

    types: tuple[type, ...]
    accepts: str
    parse: Callable[[str], Any]
    format: Callable[[Any], str]
    takes_empty: bool = False
    hidden: bool = False

    def parse_plain(self, text: str) -> Any:
        """The value of a plain text.

        Raises:
            ValueError: saying what was given and what is accepted.
        """
        try:
            return self.parse(text)
        except (ValueError, ArithmeticError):
            raise ValueError(f"{self._show(text)} is not {self.accepts}") from None

    def format_plain(self, value: Any) -> str:
        """The plain text that gives ``value``.

        Raises:
            ValueError: if there is none.
        """
        try:
            if isinstance(value, self.types):
                return self.format(value)
        except (ValueError, ArithmeticError, KeyError, TypeError):
            pass
        raise ValueError(f"{self._show(value)} is not {self.accepts}")

    def read(self, texts: Sequence[str]) -> Any:
        """The value of a key given once or more often, as percent-encoded texts. Raises as :meth:`parse_plain`."""
        if len(texts) > 1:
            raise ValueError(f"given {len(texts)} times, but it has one value: {self.accepts}")
        return self.parse_plain(unescape_query(texts[0]))

    def write(self, value: Any) -> str:
        """The percent-encoded text that reads as ``value``. Raises as :meth:`format_plain`."""
        return escape(self.format_plain(value), safe=":")

    def _show(self, value: object) -> str:
        shown = "***" if self.hidden else repr(value)
        return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"


@dataclass(frozen=True, slots=True)
class _Listing:
    make: type[list[Any]] | type[tuple[Any, ...]]
    inner: Scalar
    takes_empty: bool = True

    @property
    def accepts(self) -> str:
        return f"a list like x,y where each is {self.inner.accepts}"

    def read(self, texts: Sequence[str]) -> Any:
        return self.make(self.inner.read([piece]) for text in texts for piece in _cut(text, ","))

    def write(self, value: Any) -> str:
        if not isinstance(value, self.make):
            raise ValueError(f"{type(value).__name__} is not {self.accepts}")
        return _join(",", [self.inner.write(element) for element in value])


@dataclass(frozen=True, slots=True)
class _Mapping:
    inner: Scalar | _Listing
    takes_empty: bool = True

    @property
    def accepts(self) -> str:
        return f"a map like k:v|k2:v2 where each value is {self.inner.accepts}"

    def read(self, texts: Sequence[str]) -> Any:
        found: dict[str, list[str]] = {}
        for text in texts:
            for piece in _cut(text, "|"):
                key, *rest = _split(piece, ":", 1)
                if not rest:
                    raise ValueError(f"{unescape_query(piece)!r} has no ':'; it must be {self.accepts}")
                found.setdefault(unescape_query(key), []).append(rest[0])
        values = {}
        for key, given in found.items():
            try:
                values[key] = self.inner.read(given)
            except ValueError as error:
                raise ValueError(f"at {key!r}, {error}") from None
        return values

    def write(self, value: Any) -> str:
        if not isinstance(value, dict):
            raise ValueError(f"{type(value).__name__} is not {self.accepts}")
        return _join("|", [f"{escape(key)}:{self.inner.write(inner)}" for key, inner in value.items()])


#: How one type is read and written.
Kind = Scalar | _Listing | _Mapping


def kind_of(hint: Any) -> tuple[Kind, bool]:
    """How the annotated type is read and written, and whether it may be None.

    Raises:
        TypeError: if values of that type cannot stand in a task value.
    """
    if get_origin(hint) in (Union, types.UnionType):
        others = [arg for arg in get_args(hint) if arg is not types.NoneType]
        if len(others) == 1:
            return kind_of(others[0])[0], True
    if hint == Seconds:
        return _SECONDS, False
    if get_origin(hint) is Annotated:
        return kind_of(get_args(hint)[0])
    origin, args = get_origin(hint), get_args(hint)
    if origin is list or (origin is tuple and args[1:] == (...,)):
        return _Listing(origin, _element(args[0])), False
    if origin is dict and args[0] is str:
        inner = kind_of(args[1])[0] if get_origin(args[1]) in (list, tuple) else _element(args[1])
        if not isinstance(inner, _Mapping):
            return _Mapping(inner), False
    return _scalar(hint), False


def _scalar(hint: Any) -> Scalar:
    if hint == Seconds:
        return _SECONDS
    if get_origin(hint) is Literal:
        return _one_of({_literal_text(choice): choice for choice in get_args(hint)})
    if isinstance(hint, type) and hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _one_of({_member_text(member): member for member in hint})
    raise TypeError(
        f"{getattr(hint, '__name__', hint)} cannot stand in a task value; use str, bool, int, float, Decimal, Seconds, "
        "timedelta, datetime, date, Secret, an Enum or a Literal, list[T], tuple[T, ...], dict[str, T] or "
        "dict[str, list[T]] of these, or one of all that and None"
    )


def _element(hint: Any) -> Scalar:
    scalar = _scalar(hint)
    if scalar.hidden:
        raise TypeError("a Secret cannot stand in a list or map of a task value, whose errors show what was given")
    return scalar


def _one_of(choices: dict[str, Any]) -> Scalar:
    def parse(text: str) -> Any:
        if text not in choices:
            raise ValueError(text)
        return choices[text]

    texts = {choice: text for text, choice in choices.items()}
    accepts = "one of " + ", ".join(choices)
    return Scalar((object,), accepts, parse, texts.__getitem__, takes_empty="" in choices)


def _member_text(member: enum.Enum) -> str:
    """What people write for a member: its value where that is a text, else its name."""
    return member.value if isinstance(member.value, str) else member.name


def _literal_text(choice: Any) -> str:
    if isinstance(choice, enum.Enum):
        return _member_text(choice)
    if isinstance(choice, bool):
        return _write_bool(choice)
    if isinstance(choice, (str, int)):
        return str(choice)
    raise TypeError(f"{choice!r} in a Literal cannot stand in a task value; use texts, numbers and enum members")


def _split(text: str, separator: str, limit: int = 0) -> list[str]:
    found = re.escape(separator) if separator in text else f"(?i:%{ord(separator):02X})"
    return re.split(found, text, maxsplit=limit)


def _cut(text: str, separator: str) -> list[str]:
    pieces = _split(text, separator)
    return pieces if pieces[-1] else pieces[:-1]


def _join(separator: str, pieces: list[str]) -> str:
    text = separator.join(pieces)
    return text if _cut(text, separator) == pieces else text + separator


def _read_bool(text: str) -> bool:
    if text.lower() in ("", "true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError(text)


def _write_bool(value: bool) -> str:
    return "true" if value else "false"


def _read_int(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _read_float(text: str) -> float:
    number = float(text)
    if "_" in text or not math.isfinite(number):
        raise ValueError(text)
    return number


def _read_decimal(text: str) -> Decimal:
    number = Decimal(text)
    if "_" in text or not number.is_finite():
        raise ValueError(text)
    return number


def _write_seconds(seconds: float) -> str:
    return f"{Decimal(repr(float(seconds))):f}"


def _read_timedelta(text: str) -> timedelta:
    return timedelta(seconds=parse_duration(text))


def _write_timedelta(length: timedelta) -> str:
    if length.microseconds:
        return f"{Decimal(length // timedelta(microseconds=1)).scaleb(-6):f}s"
    return format_duration(length // timedelta(seconds=1))


def _write_datetime(moment: datetime) -> str:
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat().removesuffix("+00:00") + "Z"


_DURATION = "a duration like 250ms, 90s, 1h30m or 2d"
_SECONDS = Scalar((float, int), _DURATION, parse_duration, _write_seconds)
_SCALARS: dict[type, Scalar] = {
    str: Scalar((str,), "a text", str, str, takes_empty=True),
    Secret: Scalar((Secret,), "a secret text", Secret, Secret.reveal, takes_empty=True, hidden=True),
    bool: Scalar((bool,), "true or false", _read_bool, _write_bool, takes_empty=True),
    int: Scalar((int,), "a whole number", _read_int, lambda number: str(int(number))),
    float: Scalar((float, int), "a number", _read_float, lambda number: repr(float(number))),
    Decimal: Scalar((Decimal,), "a decimal number", _read_decimal, str),
    timedelta: Scalar((timedelta,), _DURATION, _read_timedelta, _write_timedelta),
    datetime: Scalar(
        (datetime,),
        "a time like 2006-01-02T15 or 2006-01-02T15:04:05Z (UTC without a zone)",
        parse_time,
        _write_datetime,
    ),
    date: Scalar((date,), "a date like 2006-01-02", date.fromisoformat, str),
}
