"""When cron expressions come due, clock changes included."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmasters.cron.schedule import parse_schedule
from taskmasters.zone import find_zone


def moment(text: str, zone: str = "UTC") -> int:
    """Seconds since the epoch of a wall time in a zone."""
    return int(datetime.fromisoformat(text).replace(tzinfo=find_zone(zone).info).timestamp())


def walls(expression: str, zone: str, after: str, until: str) -> list[str]:
    """The firings in between, on the clock of the zone, with its offset where it is not obvious."""
    schedule = parse_schedule(expression, find_zone(zone))
    found = []
    instant = schedule.next(moment(after, zone))
    while instant is not None and instant <= moment(until, zone):
        found.append(datetime.fromtimestamp(instant, find_zone(zone).info).strftime("%d %H:%M%z"))
        instant = schedule.next(instant)
    return found


#: Berlin: on 2026-03-29 02:00 becomes 03:00, on 2026-10-25 03:00 becomes 02:00.
SPRING = ("2026-03-28T12:00", "2026-03-30T12:00")
AUTUMN = ("2026-10-24T12:00", "2026-10-26T12:00")


@pytest.mark.parametrize(
    ("expression", "spring", "autumn"),
    [
        # Fixed times: once each day, at the end of the gap, at the first of two.
        ("30 2 * * *", ["29 03:00+0200", "30 02:30+0200"], ["25 02:30+0200", "26 02:30+0100"]),
        ("0 30 2 * * *", ["29 03:00+0200", "30 02:30+0200"], ["25 02:30+0200", "26 02:30+0100"]),
        ("0 2 * * *", ["29 03:00+0200", "30 02:00+0200"], ["25 02:00+0200", "26 02:00+0100"]),
        ("0 3 * * *", ["29 03:00+0200", "30 03:00+0200"], ["25 03:00+0100", "26 03:00+0100"]),
        ("59 1 * * *", ["29 01:59+0100", "30 01:59+0200"], ["25 01:59+0200", "26 01:59+0100"]),
        # Several in one gap are one, also with a time that follows it.
        ("15,45 2 * * *", ["29 03:00+0200", "30 02:15+0200", "30 02:45+0200"],
         ["25 02:15+0200", "25 02:45+0200", "26 02:15+0100", "26 02:45+0100"]),
        ("0 2,3 * * *", ["29 03:00+0200", "30 02:00+0200", "30 03:00+0200"],
         ["25 02:00+0200", "25 03:00+0100", "26 02:00+0100", "26 03:00+0100"]),
        # With a star in the hours or minutes: by elapsed time.
        ("0 */2 29,25 * *", ["29 00:00+0100", *(f"29 {h:02}:00+0200" for h in range(4, 24, 2))],
         ["25 00:00+0200", "25 02:00+0200", "25 02:00+0100", *(f"25 {h:02}:00+0100" for h in range(4, 24, 2))]),
        ("*/30 2 * * *", ["30 02:00+0200", "30 02:30+0200"],
         ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "26 02:00+0100", "26 02:30+0100"]),
        ("@daily", ["29 00:00+0100", "30 00:00+0200"], ["25 00:00+0200", "26 00:00+0100"]),
    ],
)  # fmt: skip
def test_clock_changes(expression: str, spring: list[str], autumn: list[str]) -> None:
    """The exact table of what fires around a gap and an overlap."""
    assert walls(expression, "Europe/Berlin", *SPRING) == spring
    assert walls(expression, "Europe/Berlin", *AUTUMN) == autumn


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_every_hour_is_every_hour(day: str, hours: int) -> None:
    """An hourly rule fires as often as the day has hours, always an hour apart."""
    schedule = parse_schedule("@hourly", find_zone("Europe/Berlin"))
    instant = schedule.next(moment(f"{day}T00:00", "Europe/Berlin") - 1)
    end = moment(f"{day}T23:00", "Europe/Berlin")
    count = 1
    while instant is not None and instant < end:
        following = schedule.next(instant)
        assert following == instant + 3600
        instant, count = following, count + 1

    assert count == hours


def test_a_change_of_half_an_hour() -> None:
    """Lord Howe sets its clocks by 30 minutes; no even hour is left out."""
    assert walls("0 */2 * * *", "Australia/Lord_Howe", "2026-04-04T23:00", "2026-04-05T04:00") == [
        "05 00:00+1100",
        "05 02:00+1030",
        "05 04:00+1030",
    ]


def test_a_day_left_out() -> None:
    """Samoa had no 2011-12-30; the firing of that day comes when the next begins."""
    assert walls("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00", "2011-12-31T23:00") == [
        "29 12:00-1000",
        "31 00:00+1400",
        "31 12:00+1400",
    ]


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("0 0 1 1 *", "2026-12-31T23:59", "2027-01-01T00:00"),
        ("59 59 23 31 12 *", "2026-06-01T00:00", "2026-12-31T23:59:59"),
        ("@yearly", "2026-12-31T23:59", "2027-01-01T00:00"),
        ("@annually", "2027-01-01T00:00", "2028-01-01T00:00"),
        ("@monthly", "2026-12-02T00:00", "2027-01-01T00:00"),
        ("@weekly", "2026-11-21T00:00", "2026-11-22T00:00"),
        ("@midnight", "2026-12-31T00:00", "2027-01-01T00:00"),
        ("0 0 L * *", "2028-02-01T00:00", "2028-02-29T00:00"),
        ("0 0 LW * *", "2026-05-01T00:00", "2026-05-29T00:00"),
        ("0 0 * * 5#3", "2026-11-01T00:00", "2026-11-20T00:00"),
        ("0 0 * * fri", "2026-11-21T00:00", "2026-11-27T00:00"),
        ("0 0 * * 7", "2026-11-21T00:00", "2026-11-22T00:00"),
        ("@every 90s", "1970-01-01T00:01", "1970-01-01T00:01:30"),
        ("@every 1h", "2026-01-01T00:00", "2026-01-01T01:00"),
        ("*/15 * * * * *", "2026-01-01T00:00:15", "2026-01-01T00:00:30"),
    ],
)
def test_next(expression: str, after: str, expected: str) -> None:
    """Leap days, year ends, descriptors, names and the special days."""
    assert parse_schedule(expression, find_zone("UTC")).next(moment(after)) == moment(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("61 * * * *", "'61' does not fit the minute: 0 to 59"),
        ("0 24 * * *", "'24' does not fit the hour: 0 to 23"),
        ("60 0 0 * * *", "'60' does not fit the second"),
        ("0 0 0 * *", "'0' does not fit the day-of-month"),
        ("0 0 30 2 *", "'30' does not fit the day-of-month: 1 to 31 and in the months given"),
        ("0 0 * 13 *", "'13' does not fit the month"),
        ("0 0 * * mun", "'mun' does not fit the day-of-week"),
        ("*/0 * * * *", "'*/0' does not fit the minute"),
        ("* * * *", "has 4 fields; a cron expression has 5"),
        ("", "has 0 fields"),
        ("9" * 5000 + " * * * *", "a cron expression has 5"),
        ("@dayly", "did you mean '@daily'?"),
        ("@every", "write @every and a duration"),
        ("@every 1 h", "write @every and a duration"),
        ("@every 1x", "'1x' is not a duration"),
        ("@every 500ms", "@every takes whole seconds"),
        ("@every -5s", "@every takes whole seconds"),
        ("@every 99999999999d", "@every takes whole seconds, from 1s to 3660d"),
    ],
)
def test_what_is_no_schedule(text: str, said: str) -> None:
    """A wrong expression is told with the field that is wrong and what it takes."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is tested
        parse_schedule(text, find_zone("UTC"))

    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@settings(max_examples=300)
@given(st.text("0123456789*/-,#LW @abcSUNJA", max_size=20))
def test_any_text_is_a_schedule_or_a_sentence(text: str) -> None:
    """No expression gives anything but a schedule or a ValueError."""
    try:
        schedule = parse_schedule(text, find_zone("Europe/Berlin"))
    except ValueError:
        return
    assert schedule.explain()


@pytest.mark.parametrize("name", ["Europe/Berln", "", "Europe", "../../etc/passwd", "a\0b", "utc+1"])
def test_unknown_zones(name: str) -> None:
    """What is no time zone is told as such."""
    with pytest.raises(ValueError, match="is not a time zone"):
        find_zone(name)


def test_the_nearest_zone_is_named() -> None:
    """A misspelt zone is told with the right one."""
    with pytest.raises(ValueError, match="did you mean 'Europe/Berlin'"):
        find_zone("europe/berln")


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Chatham"]
EXPRESSIONS = ["30 2 * * *", "*/20 * * * *", "0 */3 * * *", "15,45 1-3 * * *", "0 0 29 2 *", "0 0 2 L * *", "@every 7m"]


@settings(max_examples=200)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.integers(moment("2020-01-01"), moment("2030-01-01")),
)
def test_time_goes_forward(expression: str, zone: str, after: int) -> None:
    """The next instant is later than what it follows, and the same wherever in between one asks from."""
    schedule = parse_schedule(expression, find_zone(zone))
    first = schedule.next(after)
    assert first is not None
    assert after < first
    second = schedule.next(first)
    assert second is not None
    assert first < second
    assert schedule.next((first + second) // 2) == second
    assert schedule.next(second - 1) == second


@settings(max_examples=100)
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), st.integers(moment("2026-01-01"), moment("2027-01-01")))
def test_last_is_the_inverse_of_next(expression: str, zone: str, instant: int) -> None:
    """The latest instant until a moment is the one whose next is later."""
    schedule = parse_schedule(expression, find_zone(zone))
    last = schedule.last(instant - 4 * 86400, instant)
    if last is None:
        following = schedule.next(instant - 4 * 86400)
        assert following is not None
        assert following > instant
    else:
        assert instant - 4 * 86400 < last <= instant
        following = schedule.next(last)
        assert following is not None
        assert following > instant


def test_speed() -> None:
    """A year of hours in a zone takes a fraction of a second, so that simulating a year is cheap."""
    schedule = parse_schedule("@hourly", find_zone("Europe/Berlin"))
    began = time.perf_counter()
    instant: int | None = moment("2026-01-01")
    count = 0
    while instant is not None and instant < moment("2027-01-01"):
        instant, count = schedule.next(instant), count + 1

    assert count == 8760
    assert time.perf_counter() - began < 2.0


def test_explained() -> None:
    """A schedule says in words when it fires."""
    berlin = find_zone("Europe/Berlin")
    assert parse_schedule("0 5 * * *", berlin).explain() == "At 05:00 every day, Europe/Berlin time"
    assert parse_schedule("@every 90s", berlin).explain() == "Every 1m30s, counted from the epoch"
    assert datetime.fromtimestamp(parse_schedule("0 5 * * *", berlin).next(0) or 0, UTC).hour == 4
