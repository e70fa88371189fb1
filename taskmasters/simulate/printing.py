"""How a simulation is told: a table for people, JSON lines for programs, or counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from bus.units import format_duration
from task.times import format_time
from taskmasters.simulate.made import Kind, Made, Maker
from taskmasters.zone import Zone

__all__ = ["Period", "as_json", "as_table", "counted", "counts_as_json", "counts_as_table"]

#: The table is made as wide as the first lines need, and wider when a line needs it, but for the last columns.
_FIRST = 200
_HEADS = ("at", "topic", "task", "value", "id", "comes to", "made by")
#: No column but the last is made wider than this, by any line.
_WIDEST = 60

#: Period, maker and topic → how many.
Counts = Counter[tuple[str, Maker, str]]


class Period(StrEnum):
    """What is counted together."""

    ALL = "all"
    MONTH = "month"
    DAY = "day"
    HOUR = "hour"


_FORMATS = {Period.MONTH: "%Y-%m", Period.DAY: "%Y-%m-%d", Period.HOUR: "%Y-%m-%dT%H%z"}


def as_json(found: Iterable[Made]) -> Iterator[bytes]:
    """One line for each, without newlines."""
    for made in found:
        head: dict[str, Any] = {"at": _utc(made.at), "topic": made.topic, **_maker(made.maker)}
        if made.note:
            head["note"] = made.note
        if made.parent is not None:
            head["parent"] = made.parent
        if made.result:
            head["result"] = made.result
        if made.ended is not None:
            head["ended"] = _utc(made.ended)
        head["message"] = orjson.Fragment(made.body)
        yield orjson.dumps(head)


def as_table(found: Iterable[Made], zone: Zone) -> Iterator[str]:
    """Lines of a table, moments as the clock in ``zone`` shows them."""
    rows = (_row(made, zone) for made in found)
    yield from _aligned([_HEADS], rows)


def counted(found: Iterable[Made], period: Period, zone: Zone) -> Counts:
    """How many tasks each rule makes for each topic, by the periods of the clock in ``zone``."""
    counts: Counts = Counter()
    for made in found:
        counts[_period(made.at, period, zone), made.maker, made.topic] += 1
    return counts


def counts_as_json(counts: Counts) -> Iterator[bytes]:
    """One line for each count."""
    for (period, maker, topic), count in counts.items():
        head = {"period": period} if period else {}
        yield orjson.dumps({**head, "topic": topic, **_maker(maker), "count": count})


def counts_as_table(counts: Counts) -> Iterator[str]:
    """Lines of a table."""
    rows = [
        (*((period,) if period else ()), str(count), topic, str(maker))
        for (period, maker, topic), count in counts.items()
    ]
    heads = ("period", "count", "topic", "made by")
    yield from _aligned([heads[-len(rows[0]) :]] if rows else [], rows)


def _aligned(heads: list[tuple[str, ...]], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    rest = iter(rows)
    first = [*heads, *islice(rest, _FIRST)]
    widths = [0] * max((len(row) for row in first), default=0)
    for row in first:
        _widen(widths, row)
    for row in first:
        yield _line(widths, row)
    for row in rest:
        _widen(widths, row)
        yield _line(widths, row)


def _widen(widths: list[int], row: tuple[str, ...]) -> None:
    for number, text in enumerate(row):
        if widths[number] < len(text) <= _WIDEST:
            widths[number] = len(text)


def _line(widths: list[int], row: tuple[str, ...]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _row(made: Made, zone: Zone) -> tuple[str, ...]:
    task = made.task
    said = task.type + (f":{task.job}" if task.job else "")
    return (
        _local(made.at, zone),
        made.topic,
        _plain(said),
        _plain(task.value),
        task.id or "",
        _comes(made),
        _why(made),
    )


def _comes(made: Made) -> str:
    if made.kind is not Kind.TASK or not made.result:
        return made.result
    took = 0.0 if made.ended is None else made.ended - made.at
    return made.result + (f" in {format_duration(round(took, 3))}" if took else "")


def _why(made: Made) -> str:
    of = f" of {made.parent}" if made.parent is not None and made.kind is Kind.TASK else ""
    return _plain(f"{made.maker}{of}" + (f": {made.note}" if made.note else ""))


def _maker(maker: Maker) -> dict[str, str]:
    return {name: text for name, text in zip(("by", "file", "rule"), maker, strict=True) if text}


def _plain(text: str) -> str:
    """A text that stays in its line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


@lru_cache(maxsize=4096)
def _utc(moment: float) -> str:
    return format_time(datetime.fromtimestamp(moment, UTC))


@lru_cache(maxsize=4096)
def _local(moment: float, zone: Zone) -> str:
    when = datetime.fromtimestamp(moment, zone.info)
    text = when.isoformat(timespec="milliseconds" if when.microsecond else "seconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") and zone.name == "UTC" else text


@lru_cache(maxsize=4096)
def _period(moment: float, period: Period, zone: Zone) -> str:
    form = _FORMATS.get(period)
    return "" if form is None else datetime.fromtimestamp(moment, zone.info).strftime(form)
