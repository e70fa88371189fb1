"""Times as they stand in a task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task.times import format_time, now_text, parse_time


@given(st.datetimes(timezones=st.just(UTC)))
def test_round_trip(moment: datetime) -> None:
    """What is written is read back, to the millisecond."""
    assert parse_time(format_time(moment)) == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2017, 10, 28, 15, 42, 7, 800_000, UTC), "2017-10-28T15:42:07.800Z"),
        (datetime(2017, 10, 28, 15, 42, 7, 999_999, UTC), "2017-10-28T15:42:07.999Z"),
        (datetime(2017, 10, 28, 17, 42, 7, tzinfo=timezone(timedelta(hours=2))), "2017-10-28T15:42:07.000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
        (datetime(2017, 10, 28, 15, 42, 7), "2017-10-28T15:42:07.000Z"),  # noqa: DTZ001
    ],
)
def test_written(moment: datetime, text: str) -> None:
    """Times are written in UTC with milliseconds; one without a zone is UTC."""
    assert format_time(moment) == text


@pytest.mark.parametrize(
    "text",
    [
        "2017-10-28T15:00:00Z",
        "2017-10-28T15:00:00",
        "2017-10-28T15:00:00.000+00:00",
        "2017-10-28T17:00:00+02:00",
        "2017-10-28 15:00",
        "2017-10-28T15",
    ],
)
def test_read(text: str) -> None:
    """RFC 3339 and ISO 8601 forms are read; without a zone they are UTC."""
    moment = parse_time(text)

    assert moment == datetime(2017, 10, 28, 15, tzinfo=UTC)
    assert moment.tzinfo is UTC


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text is a time in UTC or a ValueError."""
    try:
        moment = parse_time(text)
    except ValueError:
        return

    assert moment.tzinfo is UTC


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"])
def test_outside_the_calendar(text: str) -> None:
    """A time that UTC has no year for is a ValueError, read or written."""
    with pytest.raises(ValueError, match="years 1 to 9999"):
        parse_time(text)
    with pytest.raises(ValueError, match="years 1 to 9999"):
        format_time(datetime.fromisoformat(text))


def test_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The present is written anew in each millisecond."""
    moments = iter([1509205327_000_000_000, 1509205327_000_400_000, 1509205327_001_000_000, 1509205326_000_000_000])
    monkeypatch.setattr("task.times.time.time_ns", lambda: next(moments))

    assert [now_text() for _ in range(4)] == [
        "2017-10-28T15:42:07.000Z",
        "2017-10-28T15:42:07.000Z",
        "2017-10-28T15:42:07.001Z",
        "2017-10-28T15:42:06.000Z",
    ]
