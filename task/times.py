"""Times as they stand in a task: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["format_time", "now_text", "parse_time"]

#: The last millisecond and its text: one tuple, so that no thread ever sees the text of one with another's key.
_last = (-1, "")


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 / RFC 3339 time; one without a zone is UTC.

    Raises:
        ValueError: if it is not a time.
    """
    moment = datetime.fromisoformat(text)
    zone = moment.tzinfo
    if zone is None:
        return moment.replace(tzinfo=UTC)
    if zone is UTC:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is outside the years 1 to 9999 in UTC") from None


def format_time(moment: datetime) -> str:
    """``2017-10-28T15:42:07.800Z``. A naive time is taken as UTC.

    Raises:
        ValueError: if it is outside the years 1 to 9999 in UTC.
    """
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment} is outside the years 1 to 9999 in UTC") from None
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def now_text() -> str:
    """The current time as text, formatted once per millisecond: a fast worker stamps dozens of tasks in one."""
    global _last
    millis = time.time_ns() // 1_000_000
    known, text = _last
    if millis != known:
        text = format_time(datetime.fromtimestamp(millis / 1000, UTC))
        _last = (millis, text)
    return text
