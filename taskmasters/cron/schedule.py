"""When a cron expression comes due.

Moments are whole seconds since the epoch, UTC. What happens where a zone sets its clocks:

* an expression with ``*`` in its seconds, minutes or hours follows elapsed time: it leaves out what the clock leaves
  out, and fires both times where the clock shows a time twice;
* one with fixed times fires once: at the first of the two where the clock shows it twice, and at the end of the gap
  where the clock never shows it. Several in one gap are one;
* ``@every`` counts from the epoch and knows no zones.

This is what Debian's cron does, for expressions with and without seconds alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from bus.units import format_duration, parse_duration
from bus.url import nearest
from taskmasters.zone import EPOCH, Zone

__all__ = ["Schedule", "Shown", "parse_schedule"]

_DESCRIPTORS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_EVERY = "@every"
_FIELDS = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
_RANGES = (
    "0 to 59",
    "0 to 59",
    "0 to 23",
    "1 to 31 and in the months given, L or LW",
    "1 to 12 or JAN to DEC",
    "0 to 7 or SUN to SAT, 5L, 1#2",
)
#: An expression longer than this is no expression.
_LONGEST = 500
#: Seconds.
_LONGEST_EVERY = 3660 * 86400
#: How far apart the first and the second guess at the latest moment lie, in seconds.
_FIRST_GUESS = 60


class Shown(NamedTuple):
    """A time the expression names: what the clock on the wall shows, when it does, and when the rule fires for it."""

    #: As a wall (see :mod:`taskmasters.zone`).
    wall: int
    #: None, one or two moments.
    moments: tuple[int, ...]
    #: Empty where nothing fires for it, or what fires was told of the time before.
    fires: tuple[int, ...]

    @property
    def at(self) -> int:
        """The latest moment that has to do with it."""
        return max((*self.moments, *self.fires), default=self.wall)


class Schedule(ABC):
    """The moments at which a rule fires."""

    def __init__(self, text: str, zone_name: str) -> None:
        #: What the schedule is, for the state: another text is another schedule.
        self.text = text
        #: The zone whose clock it looks at.
        self.zone_name = zone_name

    @abstractmethod
    def next(self, after: int) -> int | None:
        """The first moment later than ``after``; None if there is none within 50 years."""

    @abstractmethod
    def shown(self, after: int) -> Iterator[Shown]:
        """The times named that a clock shows after the moment ``after``, those that do not fire included."""

    @abstractmethod
    def explain(self) -> str:
        """The schedule in words."""

    def last(self, after: int, until: int) -> int | None:
        """The latest moment later than ``after`` and not later than ``until``; None if there is none."""
        length = _FIRST_GUESS
        while True:
            start = max(after, until - length)
            found = None
            moment = self.next(start)
            while moment is not None and moment <= until:
                found = moment
                moment = self.next(moment)
            if found is not None or start == after:
                return found
            length *= 2


class _Every(Schedule):
    def __init__(self, seconds: int) -> None:
        super().__init__(f"{_EVERY} {format_duration(seconds)}", "UTC")
        self._seconds = seconds

    def next(self, after: int) -> int:
        return (after // self._seconds + 1) * self._seconds

    def shown(self, after: int) -> Iterator[Shown]:
        while True:
            after = self.next(after)
            yield Shown(after, (after,), (after,))

    def explain(self) -> str:
        return f"Every {format_duration(self._seconds)}, counted from the epoch"


class _Cron(Schedule):
    def __init__(self, expression: str, zone: Zone) -> None:
        super().__init__(f"{expression} {zone.name}", zone.name)
        self._expression = expression
        self._zone = zone
        fields = expression.split()
        self._elapsed = any(field.startswith("*") for field in fields[: len(fields) - 3])

    def next(self, after: int) -> int | None:
        return self._next_elapsed(after) if self._elapsed else self._next_fixed(after)

    def shown(self, after: int) -> Iterator[Shown]:
        wall = self._next_wall(after + self._zone.span(after).offset)
        fired = after
        while wall is not None:
            moments = self._zone.moments(wall)
            fires = moments if self._elapsed else tuple(m for m in (self._zone.moment(wall),) if m > fired)
            fired = max((fired, *fires))
            yield Shown(wall, moments, fires)
            wall = self._next_wall(wall)

    def explain(self) -> str:
        return f"{_simulator(self._expression).explain()}, {self._zone.name} time"

    def _next_elapsed(self, after: int) -> int | None:
        while True:
            span = self._zone.span(after + 1)
            wall = self._next_wall(after + span.offset)
            if wall is None or wall - span.offset < span.end:
                return None if wall is None else wall - span.offset
            after = span.end - 1

    def _next_fixed(self, after: int) -> int | None:
        wall = self._next_wall(after + self._zone.span(after).offset)
        while wall is not None:
            moment = self._zone.moment(wall)
            if moment > after:
                return moment
            wall = self._next_wall(wall)
        return None

    def _next_wall(self, wall: int) -> int | None:
        simulator = _simulator(self._expression)
        simulator.dt = EPOCH + timedelta(seconds=wall)
        try:
            found = next(simulator) - EPOCH
        except (StopIteration, OverflowError):
            return None
        return found.days * 86400 + found.seconds


@lru_cache(maxsize=1024)
def _simulator(expression: str) -> CronSim:
    """Shared by all rules with this expression, which set its ``dt`` before each use: a parsed one is large."""
    return CronSim(expression, EPOCH)


@lru_cache(maxsize=100_000)
def parse_schedule(text: str, zone: Zone) -> Schedule:
    """The schedule of a cron expression with 5 fields, 6 (seconds first), or a descriptor.

    Raises:
        ValueError: saying what is wrong.
    """
    words = text.split()
    if words[:1] == [_EVERY]:
        return _parse_every(text, words[1:])
    if text.startswith("@"):
        if text.strip() not in _DESCRIPTORS:
            raise ValueError(f"{text!r} is not a schedule{nearest(text, [*_DESCRIPTORS, '@every 90s'])}")
        words = _DESCRIPTORS[text.strip()].split()
    elif len(words) not in (5, 6) or len(text) > _LONGEST:
        raise ValueError(
            f"{text[:80]!r} has {len(words)} fields; a cron expression has 5 (minute hour day-of-month month "
            "day-of-week) or 6 (second first)"
        )
    expression = " ".join(words).upper()
    try:
        _simulator(expression)
    except (CronSimError, ValueError) as error:
        raise ValueError(_say_wrong(text, words, str(error))) from None
    schedule = _Cron(expression, zone)
    if schedule.next(0) is None:
        raise ValueError(f"{text!r} never comes due")
    return schedule


def _parse_every(text: str, words: list[str]) -> Schedule:
    if len(words) != 1:
        raise ValueError(f"{text!r}: write {_EVERY} and a duration, as in '{_EVERY} 90s'")
    seconds = parse_duration(words[0])
    if not 1 <= seconds <= _LONGEST_EVERY or seconds != int(seconds):
        raise ValueError(f"{text!r}: {_EVERY} takes whole seconds, from 1s to {format_duration(_LONGEST_EVERY)}")
    return _Every(int(seconds))


def _say_wrong(text: str, words: list[str], complaint: str) -> str:
    name = complaint.removeprefix("Bad ")
    if name not in _FIELDS:
        return f"{text!r} is not a cron expression"
    index = _FIELDS.index(name)
    word = words[index - (6 - len(words))]
    return f"{text!r}: {word!r} does not fit the {name}: {_RANGES[index]}, lists 1,2, ranges 1-5, steps */5"
