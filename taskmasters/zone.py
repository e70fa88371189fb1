"""A time zone as spans of constant offset to UTC, which is what exact arithmetic over clock changes needs.

Moments and walls are whole seconds: a *moment* since the epoch in UTC, a *wall* is what a clock on the wall of that
zone shows, as if it were UTC.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

__all__ = ["EPOCH", "Span", "Zone", "find_zone"]

#: The epoch as a naive datetime: what walls are counted from.
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall has no zone

_DAY = 86400
#: Characters of a name; the longest there is has 32.
_LONGEST = 100
#: Changes are looked up for this long at a time.
_BLOCK = 400 * _DAY
#: A block knows the changes of this long before it too: longer than any gap (Samoa left out a day).
_MARGIN = 2 * _DAY
#: Offsets are compared this far apart; no zone ever changed there and back within it.
_STEP = 6 * 3600


class Span(NamedTuple):
    """From ``start`` until before ``end`` (moments) the wall is ``offset`` seconds ahead of UTC."""

    start: int
    end: int
    offset: int


class Zone:
    """One time zone. Made by :func:`find_zone`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.info = ZoneInfo(name)
        self._blocks: dict[int, list[Span]] = {}

    def span(self, moment: int) -> Span:
        """The span ``moment`` lies in. It may end, with the same offset going on, where a block ends."""
        number = moment // _BLOCK
        spans = self._blocks.get(number)
        if spans is None:
            spans = self._blocks[number] = self._make_spans(number * _BLOCK - _MARGIN, (number + 1) * _BLOCK)
        return spans[bisect_right(spans, moment, key=_start) - 1]

    def moment(self, wall: int) -> int:
        """When the clock on the wall shows ``wall``.

        The first of the two where it does so twice, and the end of the gap where it never does.
        """
        aware = (EPOCH + timedelta(seconds=wall)).replace(tzinfo=self.info)
        offset = _seconds(aware)
        moment = wall - offset
        span = self.span(moment)
        return moment if span.offset == offset else span.start

    def moments(self, wall: int) -> tuple[int, ...]:
        """Every moment at which the clock on the wall shows ``wall``: none in a gap, two where it is set back."""
        offsets = {self.span(wall + around).offset for around in (-2 * _DAY, 0, 2 * _DAY)}
        return tuple(sorted(wall - offset for offset in offsets if self.span(wall - offset).offset == offset))

    def _offset(self, moment: int) -> int:
        return _seconds(datetime.fromtimestamp(moment, UTC).astimezone(self.info))

    def _make_spans(self, start: int, end: int) -> list[Span]:
        spans = []
        offset = self._offset(start)
        for step in range(start, end, _STEP):
            after = min(step + _STEP, end)
            if self._offset(after) != offset:
                change = self._find_change(step, after, offset)
                spans.append(Span(start, change, offset))
                start, offset = change, self._offset(after)
        spans.append(Span(start, end, offset))
        return spans

    def _find_change(self, low: int, high: int, offset: int) -> int:
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == offset:
                low = middle
            else:
                high = middle
        return high


@lru_cache(maxsize=1024)
def find_zone(name: str) -> Zone:
    """The zone called ``name`` in the IANA database.

    Raises:
        ValueError: naming the nearest known one.
    """
    try:
        # Each part of a name may become a package to be imported, in a recursion as deep as there are parts.
        if len(name) > _LONGEST:
            raise ValueError
        return Zone(name)
    except (OSError, ValueError, KeyError):  # what ZoneInfo raises for a name that is a directory, a bad path, unknown
        from difflib import get_close_matches
        from zoneinfo import available_timezones

        by_lower = {known.lower(): known for known in available_timezones()}
        close = get_close_matches(name.lower(), by_lower, 1)
        hint = f"; did you mean {by_lower[close[0]]!r}?" if close else "; write one like UTC or Europe/Berlin"
        raise ValueError(f"{name[:80]!r} is not a time zone{hint}") from None


def _start(span: Span) -> int:
    return span.start


def _seconds(aware: datetime) -> int:
    offset = aware.utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
