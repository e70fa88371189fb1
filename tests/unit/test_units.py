"""Durations and sizes as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.units import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("250ms", 0.25),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1w2d", 777600.0),
        ("-2d", -172800.0),
        ("+1h", 3600.0),
        (" 5 ", 5.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number of seconds or numbers with units."""
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "-", "s", "5 s", "5x", "1h30", "--5", "+-5", "1e5", "nan", "inf", "1.5.2s", "h1", "9" * 400, "9" * 400 + "w"],
)
def test_no_durations(text: str) -> None:
    """Anything else is an error that shows how to write one."""
    with pytest.raises(ValueError, match="is not a duration; write seconds or like 250ms, 90s, 1h30m, 2d"):
        parse_duration(text)


@given(st.text() | st.from_regex(r"[-+]?[0-9.]{0,9}(us|ms|s|m|h|d|w|)[0-9.]{0,4}(s|m|h)?", fullmatch=True))
def test_any_duration(text: str) -> None:
    """Any text is a finite number of seconds or a ValueError."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return

    assert math.isfinite(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-0.0, "0s"),
        (0.25, "250ms"),
        (1e-9, "0.000001ms"),
        (1.5, "1.5s"),
        (60, "1m"),
        (5400, "1h30m"),
        (90061, "1d1h1m1s"),
        (-90, "-1m30s"),
        (1234567.5, "1234567.5s"),
    ],
)
def test_written_durations(seconds: float, text: str) -> None:
    """A duration is written the way people would."""
    assert format_duration(seconds) == text


@given(st.floats(-1e300, 1e300))
def test_written_durations_are_read(seconds: float) -> None:
    """Every duration is written so that it is read back, to a few digits or a nanosecond."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("64KB", 64_000),
        ("64k", 64_000),
        ("1MiB", 1048576),
        ("1.5 KiB", 1536),
        ("0.1GB", 100_000_000),
        ("9007199254740993", 9007199254740993),
        (" 1mb ", 1_000_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """A size is a number of bytes or has a decimal or binary unit; it is exact."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "k", "1x", "1 2", "1e3", "1.", "1/2", "9" * 400, "9" * 5000])
def test_no_sizes(text: str) -> None:
    """Anything else is an error that shows how to write one."""
    with pytest.raises(ValueError, match="is not a size; write bytes or like 64KB, 1MiB"):
        parse_size(text)


@given(st.text() | st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,9})?\s?[kmgKMG]?i?[bB]?", fullmatch=True))
def test_any_size(text: str) -> None:
    """Any text is a size or a ValueError."""
    try:
        size = parse_size(text)
    except ValueError:
        return

    assert size >= 0
