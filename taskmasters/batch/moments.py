"""The moments of a range of dates: by hour, day, week or month, forward or backward, both ends included."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from bus.units import parse_duration
from task.times import parse_time
from taskmasters.zone import EPOCH, Zone

__all__ = ["Step", "moments", "parse_hours", "parse_moment"]

_DATE = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d))?)?)?)?")
_HOUR = 3600


class Step(StrEnum):
    """How far one moment of a range is from the next."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def parse_moment(text: str, zone: Zone, now: float) -> int:
    """A moment, in seconds since the epoch.

    ``2026-01``, ``2026-01-31``, ``2026-01-31T05``, ``2026-01-31T05:30`` are what the clock shows in ``zone``; a time
    with an offset or a ``Z`` is that moment; ``now`` and ``-36h`` count from the present hour.

    Raises:
        ValueError: if it is none of these.
    """
    if text == "now" or text.startswith(("-", "+")):
        present = int(now) // _HOUR * _HOUR
        return present if text == "now" else present + int(parse_duration(text.removeprefix("+")))
    if match := _DATE.fullmatch(text):
        year, month, day, hour, minute, second = (int(part) if part else 0 for part in match.groups())
        wall = datetime(year, month, day or 1, hour, minute, second)  # noqa: DTZ001 - a wall has no zone
        return zone.moment(_seconds(wall))
    try:
        return int(parse_time(text).timestamp())
    except ValueError:
        raise ValueError(f"{text!r} is no moment: write 2026-01-31, 2026-01-31T05, now, or -36h for then") from None


def parse_hours(text: str) -> frozenset[int]:
    """Hours of the day, as in ``0,4,8-12``. Raises ValueError."""
    hours: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{part!r} is no hour: write 0,4,8-12")
        span = range(int(first), int(last or first) + 1)
        if not span or span[-1] > 23:
            raise ValueError(f"{part!r} is no hour of the day: 0 to 23")
        hours.update(span)
    return frozenset(hours)


def moments(
    start: int, end: int, step: Step, zone: Zone, hours: frozenset[int] = frozenset(range(24)), every: int = 1
) -> Iterator[int]:
    """The moments from ``start`` to ``end``, ``every`` so many steps, those whose hour in ``zone`` is in ``hours``.

    Hours are hours of elapsed time. Days, weeks and months keep what the clock shows in ``zone``; where it never shows
    that, the end of the gap stands for it. A month without such a day has its last one.
    """
    sign = 1 if end >= start else -1
    number = 0
    while True:
        try:
            moment = _nth(start, sign * number, step, zone)
        except (ValueError, OverflowError):
            return  # the calendar ends before the range does
        if (moment - end) * sign > 0:
            return
        if datetime.fromtimestamp(moment, zone.info).hour in hours:
            yield moment
        number += every


def _nth(start: int, number: int, step: Step, zone: Zone) -> int:
    """Counted from the start each time, so that the end of a short month does not shorten those after it."""
    if step is Step.HOUR:
        return start + number * _HOUR
    if number == 0:
        return start
    wall = EPOCH + timedelta(seconds=start + zone.span(start).offset)
    if step is Step.MONTH:
        months = wall.year * 12 + wall.month - 1 + number
        year, month = months // 12, months % 12 + 1
        wall = wall.replace(year=year, month=month, day=min(wall.day, monthrange(year, month)[1]))
    else:
        wall += timedelta(days=number * (7 if step is Step.WEEK else 1))
    return zone.moment(_seconds(wall))


def _seconds(wall: datetime) -> int:
    return int(wall.replace(tzinfo=UTC).timestamp())
